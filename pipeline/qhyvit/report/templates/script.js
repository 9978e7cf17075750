(function () {
  const list = document.getElementById("tensors");
  if (!list) return;
  const rows = Array.from(list.children);
  const text = document.getElementById("filter"), kind = document.getElementById("kind"), by = document.getElementById("by");
  const value = (row, key) => row.dataset[key] === "" ? Infinity : Number(row.dataset[key]);
  function show() {
    const wanted = text.value.toLowerCase(), key = by.value, up = key === "sqnr" || key === "file" || key === "order";
    for (const row of rows) {
      const hit = (row.dataset.name + " " + row.dataset.block).toLowerCase().includes(wanted);
      row.hidden = !(hit && (!kind.value || row.dataset.kind === kind.value));
    }
    rows.sort((a, b) => (up ? 1 : -1) * (value(a, key) - value(b, key)) || value(a, "order") - value(b, "order"));
    list.append(...rows);
  }
  for (const control of [text, kind, by]) control.addEventListener("input", show);
  for (const link of document.querySelectorAll("[data-filter]"))
    link.addEventListener("click", () => { text.value = link.dataset.filter; show(); });
  function open() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target || !target.classList.contains("tensor")) return;
    target.open = true;
    target.scrollIntoView();
  }
  addEventListener("hashchange", open);
  document.querySelector(".controls").hidden = false;
  show();
  open();
})();
