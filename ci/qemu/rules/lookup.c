// SPDX-License-Identifier: GPL-2.0-only
/* Which translations are cached, and what they may be used for. */
#include "rules.h"

static void lookup_before_walk(struct vm *vm)
{
	stale(vm, 0);
	survives(vm, 0, "read again");
	survives(vm, 0, "and again");
	flush_guest(vm);
	gone(vm, 0, "flush");
}

/* The entry that the mode tests: the guest's or the nested one */
static u64 *leaf(struct vm *vm, u64 n)
{
	return vm->mode == NESTED_TABLE ? npte(vm, n) : pte(vm, n);
}

static u64 fault(struct vm *vm)
{
	return vm->mode == NESTED_TABLE ? EXIT_NPF : EXIT_PF;
}

/* Instruction fetches use the same translations: MOV EAX, 1 or 2; RET */
static void fetches(struct vm *vm)
{
	u64 code = 0xc300000000b8, v;

	map_old(vm, 0);
	*data_of(vm, 0) = code | 1 << 8;
	v = guest(vm, g_call, gva(vm, 0), 0);
	expect(v == 1, "first call: %lx", v);
	map_new(vm, 0);
	*data_of(vm, 0) = code | 2 << 8;
	v = guest(vm, g_call, gva(vm, 0), 0);
	expect(v == (config.model ? 1 : 2), "changed, not flushed: %lx", v);
	flush_guest(vm);
	v = guest(vm, g_call, gva(vm, 0), 0);
	expect(v == 2, "flush: %lx", v);
}

static void not_present_not_cached(struct vm *vm)
{
	u64 v;

	map_old(vm, 0);
	*leaf(vm, 0) &= ~PT_P;
	load(vm, 0);
	expect(vm->vmcb->exit_code == fault(vm), "not present: exit code %lx", vm->vmcb->exit_code);
	load(vm, 0);
	*leaf(vm, 0) |= PT_P;
	v = load(vm, 0);
	expect(v == old_data(vm, 0), "present now: read %lx", v);

	*leaf(vm, 0) &= ~PT_P;
	v = load(vm, 0);
	if (config.model)
		expect(v == old_data(vm, 0), "present cleared, not flushed: read %lx", v);
	else
		expect(vm->vmcb->exit_code == fault(vm), "present cleared: exit code %lx",
		       vm->vmcb->exit_code);
	flush_guest(vm);
	load(vm, 0);
	expect(vm->vmcb->exit_code == fault(vm), "present cleared and flushed: exit code %lx",
	       vm->vmcb->exit_code);
}

/* A missing upper level is not cached either. */
static void not_present_table_not_cached(struct vm *vm)
{
	u64 *e, v;

	map_old(vm, 0);
	e = vm->mode == NESTED_TABLE ? entry(vm->ncr3, vm->pa, 2) : entry(vm->cr3, vm->va, 2);
	*e &= ~PT_P;
	load(vm, 0);
	expect(vm->vmcb->exit_code == fault(vm), "no table: exit code %lx", vm->vmcb->exit_code);
	*e |= PT_P;
	v = load(vm, 0);
	expect(v == old_data(vm, 0), "table present now: read %lx", v);
	map_new(vm, 0);
	survives(vm, 0, "filled after the fault");
	flush_guest(vm);
	gone(vm, 0, "flush");
}

/* Added rights need no flush: the walk before a fault finds them. */
static void rights_raised(struct vm *vm)
{
	map_old(vm, 0);
	*leaf(vm, 0) &= ~PT_RW;
	load(vm, 0);
	store(vm, 0, 1, fault(vm));
	load(vm, 0);
	*leaf(vm, 0) |= PT_RW;
	store(vm, 0, 2, EXIT_VMMCALL);
	expect(load(vm, 0) == 2, "what was stored is not there");
}

/* After an entry did not allow an access, its address must not be used either. */
static void rights_raised_elsewhere(struct vm *vm)
{
	map_old(vm, 0);
	*leaf(vm, 0) &= ~PT_RW;
	*leaf(vm, 0) |= PT_D;
	load(vm, 0);
	map_new(vm, 0);
	survives(vm, 0, "read-only, address changed");
	*leaf(vm, 0) |= PT_RW;
	store(vm, 0, new_data(vm, 0), EXIT_VMMCALL);
	gone(vm, 0, "store by a new right");
}

static void rights_lowered(struct vm *vm)
{
	map_old(vm, 0);
	*leaf(vm, 0) |= PT_D;
	store(vm, 0, 1, EXIT_VMMCALL);
	*leaf(vm, 0) &= ~PT_RW;
	store(vm, 0, 2, config.model ? EXIT_VMMCALL : fault(vm));
	flush_guest(vm);
	store(vm, 0, 3, fault(vm));
}

/* A fault is raised by a walk, after which nothing of the old translation is left. */
static void fault_drops_entry(struct vm *vm)
{
	stale(vm, 0);
	survives(vm, 0, "before the fault");
	*leaf(vm, 0) &= ~PT_RW;
	store(vm, 0, 1, vm->mode == NPT_OFF || vm->mode == NESTED_TABLE ? fault(vm) : EXIT_PF);
	gone(vm, 0, "the fault");
}

/* D is set by a walk, which reads the current tables, and never from a cached translation. */
static void store_to_clean_page(struct vm *vm)
{
	u64 *old;

	if (vm->mode == NESTED_TABLE) {
		map_old(vm, 0);
		*pte(vm, 0) |= PT_D;
		*pte(vm, 1) |= PT_D;
	}
	stale(vm, 0);
	survives(vm, 0, "clean page read");
	expect(!(*leaf(vm, 0) & PT_D), "a load has set D");
	store(vm, 0, 5, EXIT_VMMCALL);
	expect(*leaf(vm, 0) & PT_D, "D is not set");
	expect(load(vm, 0) == 5, "the store went elsewhere");

	/* The other half: a store to a page that is already dirty uses the cached translation. */
	map_old(vm, 1);
	*leaf(vm, 1) |= PT_D;
	if (vm->mode == NESTED_TABLE)
		*pte(vm, 1) |= PT_D;
	store(vm, 1, old_data(vm, 1), EXIT_VMMCALL);
	old = data_of(vm, 1);
	map_new(vm, 1);
	store(vm, 1, 6, EXIT_VMMCALL);
	expect((*old == 6) == config.model, "store to a dirty page: the old page holds %lx", *old);
	flush_guest(vm);
	expect(load(vm, 1) == (config.model ? new_data(vm, 1) : 6), "flush");
}

/* The translation of a store that set D is cached like any other. */
static void dirty_entry_is_kept(struct vm *vm)
{
	map_old(vm, 0);
	load(vm, 0);
	store(vm, 0, old_data(vm, 0), EXIT_VMMCALL);
	map_new(vm, 0);
	survives(vm, 0, "stored to, then changed");
	flush_guest(vm);
	gone(vm, 0, "flush");
}

/* A hypervisor that clears D or A, and expects it to be set again, must flush. */
static void dirty_cleared(struct vm *vm)
{
	map_old(vm, 0);
	*pte(vm, 0) |= PT_D;
	store(vm, 0, 1, EXIT_VMMCALL);
	expect(*leaf(vm, 0) & PT_D, "D is not set");
	*leaf(vm, 0) &= ~PT_D;
	store(vm, 0, 2, EXIT_VMMCALL);
	expect(!(*leaf(vm, 0) & PT_D) == config.model,
	       "D cleared, not flushed: the entry is %lx after a store", *leaf(vm, 0));
	flush_guest(vm);
	load(vm, 0);
	expect(!(*leaf(vm, 0) & PT_D) == config.model,
	       "D cleared and flushed: the entry is %lx after a load", *leaf(vm, 0));
	store(vm, 0, 3, EXIT_VMMCALL);
	expect(*leaf(vm, 0) & PT_D, "D cleared and flushed: the entry is %lx after a store",
	       *leaf(vm, 0));
}

static void accessed_cleared(struct vm *vm)
{
	map_old(vm, 0);
	load(vm, 0);
	expect(*leaf(vm, 0) & PT_A, "A is not set");
	*leaf(vm, 0) &= ~PT_A;
	load(vm, 0);
	expect(!(*leaf(vm, 0) & PT_A) == config.model, "A cleared, not flushed: the entry is %lx",
	       *leaf(vm, 0));
	flush_guest(vm);
	load(vm, 0);
	expect(*leaf(vm, 0) & PT_A, "A cleared and flushed: the entry is %lx", *leaf(vm, 0));
}

static void execute_raised(struct vm *vm)
{
	map_old(vm, 0);
	*data_of(vm, 0) = 0xc3;		/* RET */
	*leaf(vm, 0) |= PT_NX;
	load(vm, 0);
	guest(vm, g_call, gva(vm, 0), 0);
	expect(vm->vmcb->exit_code == fault(vm), "NX: exit code %lx", vm->vmcb->exit_code);
	load(vm, 0);
	*leaf(vm, 0) &= ~PT_NX;
	guest_ok(vm, g_call, gva(vm, 0), 0);

	/* Once the right is removed again, the cached translation stays until a flush. */
	*leaf(vm, 0) |= PT_NX;
	guest(vm, g_call, gva(vm, 0), 0);
	expect(vm->vmcb->exit_code == (config.model ? EXIT_VMMCALL : fault(vm)),
	       "NX set, not flushed: exit code %lx", vm->vmcb->exit_code);
	flush_guest(vm);
	guest(vm, g_call, gva(vm, 0), 0);
	expect(vm->vmcb->exit_code == fault(vm), "NX set and flushed: exit code %lx",
	       vm->vmcb->exit_code);
}

void lookup_tests(void)
{
	static const struct test tests[] = {
		{ "lookup-before-walk", lookup_before_walk, ALL_MODES },
		{ "fetches", fetches, ALL_MODES },
		{ "not-present-not-cached", not_present_not_cached, ALL_MODES },
		{ "not-present-table-not-cached", not_present_table_not_cached, ALL_MODES },
		{ "rights-raised", rights_raised, ALL_MODES },
		{ "rights-raised-elsewhere", rights_raised_elsewhere, ALL_MODES },
		{ "rights-lowered", rights_lowered, ALL_MODES },
		{ "fault-drops-entry", fault_drops_entry, ALL_MODES },
		{ "store-to-clean-page", store_to_clean_page, ALL_MODES },
		{ "dirty-entry-is-kept", dirty_entry_is_kept, ALL_MODES },
		{ "dirty-cleared", dirty_cleared, ALL_MODES },
		{ "accessed-cleared", accessed_cleared, ALL_MODES },
		{ "execute-raised", execute_raised, ALL_MODES },
	};

	run_tests("base", tests, ARRAY_SIZE(tests));
}
