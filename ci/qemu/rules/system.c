// SPDX-License-Identifier: GPL-2.0-only
/* Events that flush all ASIDs of a processor: SMI and RSM, A20, MTRRs. */
#include "rules.h"

#define PORT_A20	0x92
#define A20_ON		2
#define PORT_SMI	0xb2

static void flushes_all(struct vm *vm, void (*event)(struct vm *vm), const char *what)
{
	struct vm *b = vm_like(vm, 2);

	stale(vm, 0);
	stale_global(vm, 1);
	stale(b, 0);
	stale_global(b, 1);
	survives(vm, 0, "before");
	survives(b, 1, "before, global");
	event(vm);
	gone(vm, 0, what);
	gone(vm, 1, what);
	gone(b, 0, what);
	gone(b, 1, what);
}

/* The handler of the firmware ignores this command and returns. */
static void smi(struct vm *vm)
{
	(void)vm;
	outb(PORT_SMI, 0x77);
	/* The CPU takes the SMI soon, between two instructions. */
	inb(0x80);
	inb(0x80);
}

static void smi_rsm(struct vm *vm)
{
	flushes_all(vm, smi, "SMI and RSM");
}

/* While A20 is off, the host accesses only addresses with bit 20 clear, see rules.ld. */
static void a20(struct vm *vm)
{
	u8 v = inb(PORT_A20) & ~1;
	u64 odd;

	(void)vm;
	outb(PORT_A20, v & ~A20_ON);
	asm volatile("mov 0x300000, %0" : "=r"(odd) : : "memory");
	outb(PORT_A20, v | A20_ON);
	expect(odd == *(u64 *)0x200000, "A20 was not masked");
}

static void a20_masked(struct vm *vm)
{
	if (!(inb(PORT_A20) & A20_ON))
		return skip("A20 is not on to begin with");
	flushes_all(vm, a20, "A20 masked and back");
}

static void mtrr_deftype(struct vm *vm)
{
	(void)vm;
	wrmsr(MSR_MTRR_DEFTYPE, rdmsr(MSR_MTRR_DEFTYPE));
}

static void mtrr_var(struct vm *vm)
{
	(void)vm;
	wrmsr(MSR_MTRR_PHYSBASE0, rdmsr(MSR_MTRR_PHYSBASE0));
}

static void mtrr_var_mask(struct vm *vm)
{
	(void)vm;
	wrmsr(MSR_MTRR_PHYSBASE0 + 3, rdmsr(MSR_MTRR_PHYSBASE0 + 3));
}

static void mtrr_fixed(struct vm *vm)
{
	(void)vm;
	wrmsr(0x250, rdmsr(0x250));
	wrmsr(0x26f, rdmsr(0x26f));
}

static void mtrr_by_guest(struct vm *vm)
{
	guest_ok(vm, g_wrmsr, MSR_MTRR_DEFTYPE, rdmsr(MSR_MTRR_DEFTYPE));
}

static void mtrr_host(struct vm *vm)
{
	flushes_all(vm, mtrr_deftype, "MTRR default type");
}

static void mtrr_host_var(struct vm *vm)
{
	flushes_all(vm, mtrr_var, "variable MTRR");
}

static void mtrr_host_mask(struct vm *vm)
{
	flushes_all(vm, mtrr_var_mask, "variable MTRR's mask");
}

static void mtrr_host_fixed(struct vm *vm)
{
	flushes_all(vm, mtrr_fixed, "fixed MTRRs");
}

static void mtrr_guest(struct vm *vm)
{
	flushes_all(vm, mtrr_by_guest, "MTRR written by the guest");
}

void system_tests(void)
{
	static const struct test tests[] = {
		{ "smi-rsm", smi_rsm, ALL_MODES },
		{ "a20", a20_masked, ALL_MODES },
		{ "mtrr-deftype", mtrr_host, ALL_MODES },
		{ "mtrr-variable", mtrr_host_var, ALL_MODES },
		{ "mtrr-variable-mask", mtrr_host_mask, ALL_MODES },
		{ "mtrr-fixed", mtrr_host_fixed, ALL_MODES },
		{ "mtrr-by-guest", mtrr_guest, ALL_MODES },
	};

	run_tests("base", tests, ARRAY_SIZE(tests));
}
