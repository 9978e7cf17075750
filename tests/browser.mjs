// Serves a folder, opens its page in Chromium, and writes what the page's model gives for files of pixels.
// node browser.mjs FOLDER FILES.json OUT.json CHROMIUM; run where puppeteer-core is installed.
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import puppeteer from "puppeteer-core";

const [root, files, out, browserPath] = process.argv.slice(2);
const types = {".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm"};
const server = http.createServer((request, response) => {
  const file = path.join(root, request.url === "/" ? "index.html" : request.url);
  if (!fs.existsSync(file)) return response.writeHead(404).end();
  response.writeHead(200, {"content-type": types[path.extname(file)] ?? "application/octet-stream"});
  response.end(fs.readFileSync(file));
}).listen(0);
const browser = await puppeteer.launch({executablePath: browserPath, args: ["--no-sandbox"]});
const page = await browser.newPage();
await page.goto(`http://localhost:${server.address().port}/`);
await page.waitForFunction(() => window.qhyvit, {timeout: 120000});
const found = [];
for (const file of JSON.parse(fs.readFileSync(files))) {
  const pixels = [...fs.readFileSync(file)];
  found.push(await page.evaluate(async given => window.qhyvit.run(new Uint8Array(given)), pixels));
}
fs.writeFileSync(out, JSON.stringify(found));
await browser.close();
server.close();
