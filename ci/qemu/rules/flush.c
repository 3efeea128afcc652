// SPDX-License-Identifier: GPL-2.0-only
/* TLB_CONTROL, and the ASIDs that it flushes. */
#include "rules.h"

static void tlb_control_0(struct vm *vm)
{
	stale(vm, 0);
	stale_global(vm, 1);
	flush(vm, KEEP);
	survives(vm, 0, "TLB_CONTROL 0");
	survives(vm, 1, "TLB_CONTROL 0, global");
	flush_guest(vm);
	gone(vm, 0, "flush");
	gone(vm, 1, "flush, global");
}

static void tlb_control_1(struct vm *vm)
{
	struct vm *b = vm_like(vm, 2), *c = vm_like(vm, 3);

	stale(vm, 0);
	stale_global(vm, 1);
	stale(b, 0);
	stale_global(b, 1);
	survives(vm, 0, "before");
	survives(b, 0, "before");
	flush(c, FLUSH_ALL);
	gone(vm, 0, "TLB_CONTROL 1 with another ASID");
	gone(vm, 1, "TLB_CONTROL 1 with another ASID, global");
	gone(b, 0, "TLB_CONTROL 1 with another ASID");
	gone(b, 1, "TLB_CONTROL 1 with another ASID, global");
}

static void tlb_control_3(struct vm *vm)
{
	struct vm *b = vm_like(vm, 2);

	stale(vm, 0);
	stale_global(vm, 1);
	stale(b, 0);
	stale_global(b, 1);
	survives(vm, 0, "before");
	survives(vm, 1, "before, global");
	flush(vm, FLUSH_ASID);
	gone(vm, 0, "TLB_CONTROL 3");
	gone(vm, 1, "TLB_CONTROL 3, global");
	survives(b, 0, "TLB_CONTROL 3 with another ASID");
	survives(b, 1, "TLB_CONTROL 3 with another ASID, global");
	flush(b, FLUSH_ASID);
	gone(b, 0, "TLB_CONTROL 3 with its own ASID");
	gone(b, 1, "TLB_CONTROL 3 with its own ASID, global");
}

static void tlb_control_7(struct vm *vm)
{
	struct vm *b = vm_like(vm, 2);

	stale(vm, 0);
	stale_global(vm, 1);
	stale(b, 0);
	survives(vm, 0, "before");
	survives(vm, 1, "before, global");
	flush(vm, FLUSH_NONGLOBAL);
	gone(vm, 0, "TLB_CONTROL 7");
	survives(vm, 1, "TLB_CONTROL 7, global");
	survives(b, 0, "TLB_CONTROL 7 with another ASID");
	flush(vm, FLUSH_ASID);
	gone(vm, 1, "TLB_CONTROL 3, global");
	flush(b, FLUSH_NONGLOBAL);
	gone(b, 0, "TLB_CONTROL 7 with its own ASID");
}

/* After TLB_CONTROL 7, a global page that is not in the TLB must not be found by its guest-physical address. */
static void tlb_control_7_guest_physical(struct vm *vm)
{
	stale_global(vm, 0);
	/* Page 1 is the same guest-physical page as page 0. */
	*pte(vm, 1) = *pte(vm, 0) & ~PT_G;
	expect(load(vm, 1) == (config.model ? old_data(vm, 0) : new_data(vm, 0)),
	       "cached guest-physical page");
	flush(vm, FLUSH_NONGLOBAL);
	expect(load(vm, 1) == new_data(vm, 0), "TLB_CONTROL 7 left a guest-physical translation");
	survives(vm, 0, "TLB_CONTROL 7, global");
}

static void tlb_control_reserved(struct vm *vm)
{
	static const u8 values[] = { 2, 4, 5, 6, 8, 9, 0x0b, 0x0f, 0x80, 0x81, 0x83, 0x87, 0xff };
	u32 i;

	stale(vm, 0);
	for (i = 0; i < ARRAY_SIZE(values); i++) {
		flush(vm, values[i]);
		survives(vm, 0, "reserved TLB_CONTROL");
	}
	flush_guest(vm);
	gone(vm, 0, "flush");
}

static void without_flushbyasid(struct vm *vm, enum tlb_control how)
{
	stale(vm, 0);
	stale_global(vm, 1);
	flush(vm, how);
	survives(vm, 0, "flush by ASID without FLUSHBYASID");
	survives(vm, 1, "flush by ASID without FLUSHBYASID, global");
	flush(vm, FLUSH_ALL);
	gone(vm, 0, "TLB_CONTROL 1");
	gone(vm, 1, "TLB_CONTROL 1, global");
}

static void tlb_control_3_without_flushbyasid(struct vm *vm)
{
	without_flushbyasid(vm, FLUSH_ASID);
}

static void tlb_control_7_without_flushbyasid(struct vm *vm)
{
	without_flushbyasid(vm, FLUSH_NONGLOBAL);
}

/* The flush happens before the guest's first access, not after its last one. */
static void tlb_control_before_entry(struct vm *vm)
{
	stale(vm, 0);
	survives(vm, 0, "before");
	vm->vmcb->tlb_control = FLUSH_ALL;
	gone(vm, 0, "the VMRUN that flushes");
	vm->vmcb->tlb_control = KEEP;
	stale(vm, 1);
	survives(vm, 1, "the VMRUN after it");
	flush_guest(vm);
	gone(vm, 1, "flush");
}

/* The other tests use only the features that CPUID reports. */
static void cpuid_flushbyasid(struct vm *vm)
{
	(void)vm;
	expect(config.by_asid == config.want_by_asid, "CPUID says FLUSHBYASID %s",
	       config.by_asid ? "on" : "off");
}

/* Two guests with the same addresses and different tables */
static void asids_do_not_mix(struct vm *vm)
{
	struct vm *b = vm_like(vm, 2);

	stale(vm, 0);
	stale(b, 0);
	survives(vm, 0, "two ASIDs");
	survives(b, 0, "two ASIDs");
	/* A guest without cached translations, with the tables of one that has some */
	vm->vmcb->asid = 3;
	gone(vm, 0, "an ASID that never ran");
	vm->vmcb->asid = 1;
	survives(vm, 0, "the ASID it had");
	flush_guest(vm);
	flush_guest(b);
	gone(vm, 0, "flush");
	gone(b, 0, "flush");
}

/* Lookups compare the ASID, not the tables from which a translation came. */
static void asid_not_tables(struct vm *vm)
{
	struct vm *b = vm_like(vm, 1);

	stale(vm, 0);
	map_old(b, 0);
	expect(load(b, 0) == (config.model ? old_data(vm, 0) : old_data(b, 0)),
	       "other tables, same ASID");
	flush_guest(b);
	expect(load(b, 0) == old_data(b, 0), "other tables, flushed");
}

void flush_tests(void)
{
	static const struct test tests[] = {
		{ "cpuid-flushbyasid", cpuid_flushbyasid, 0 },
		{ "tlb-control-0", tlb_control_0, ALL_MODES },
		{ "tlb-control-1", tlb_control_1, ALL_MODES },
		{ "tlb-control-reserved", tlb_control_reserved, ALL_MODES },
		{ "tlb-control-before-entry", tlb_control_before_entry, ALL_MODES },
		{ "asids-do-not-mix", asids_do_not_mix, ALL_MODES },
		{ "asid-not-tables", asid_not_tables, ALL_MODES },
	};
	static const struct test by_asid[] = {
		{ "tlb-control-3", tlb_control_3, ALL_MODES },
		{ "tlb-control-7", tlb_control_7, ALL_MODES },
		{ "tlb-control-7-guest-physical", tlb_control_7_guest_physical, NESTED_TABLE },
	};
	static const struct test not_by_asid[] = {
		{ "tlb-control-3-without-flushbyasid", tlb_control_3_without_flushbyasid,
		  ALL_MODES },
		{ "tlb-control-7-without-flushbyasid", tlb_control_7_without_flushbyasid,
		  ALL_MODES },
	};

	run_tests("base", tests, ARRAY_SIZE(tests));
	if (config.by_asid)
		run_tests("by-asid", by_asid, ARRAY_SIZE(by_asid));
	else
		run_tests("not-by-asid", not_by_asid, ARRAY_SIZE(not_by_asid));
}
