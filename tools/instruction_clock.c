/* A QEMU plugin: the emulated clock counts instructions, one microsecond each, so that a profiler's times are counts.

   clock_gettime is answered by the kernel; what it wrote is replaced when the call comes back. The guest's memory lies
   at GUEST_BASE, which the emulator is started with (-B). */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
typedef void (*translated)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*executed)(unsigned int, void *);
typedef void (*called)(qemu_plugin_id_t, unsigned int, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                       uint64_t, uint64_t, uint64_t);
typedef void (*returned)(qemu_plugin_id_t, unsigned int, int64_t, int64_t);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, translated);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, executed, int flags, void *);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, called);
void qemu_plugin_register_vcpu_syscall_ret_cb(qemu_plugin_id_t, returned);

#define EXPORTED __attribute__((visibility("default")))
enum { CLOCK_GETTIME = 113, START = 1000, MILLION = 1000000, THOUSAND = 1000 };

EXPORTED int qemu_plugin_version = 4;
static uint64_t instructions, guest_base;
static __thread uint64_t written; /* where clock_gettime writes; 0: another call */

static void on_block(unsigned int cpu, void *count) { instructions += (uintptr_t)count; }

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
  qemu_plugin_register_vcpu_tb_exec_cb(block, on_block, 0, (void *)(uintptr_t)qemu_plugin_tb_n_insns(block));
}

static void on_call(qemu_plugin_id_t id, unsigned int cpu, int64_t number, uint64_t clock, uint64_t time, uint64_t a,
                    uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f) {
  written = number == CLOCK_GETTIME ? time : 0;
}

static void on_return(qemu_plugin_id_t id, unsigned int cpu, int64_t number, int64_t result) {
  if (number != CLOCK_GETTIME || written == 0 || result != 0) return;
  int64_t *time = (int64_t *)(guest_base + written);
  time[0] = START + instructions / MILLION;
  time[1] = instructions % MILLION * THOUSAND;
}

EXPORTED int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv) {
  const char *base = getenv("GUEST_BASE");
  if (base == NULL) return 1;
  guest_base = strtoull(base, NULL, 16);
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
  qemu_plugin_register_vcpu_syscall_cb(id, on_call);
  qemu_plugin_register_vcpu_syscall_ret_cb(id, on_return);
  return 0;
}
