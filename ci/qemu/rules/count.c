// SPDX-License-Identifier: GPL-2.0-only
/* What the model reports: counters, capacity, oracle. */
#include "rules.h"

static u64 before[C_MAX];

static void snapshot(void)
{
	int i;

	for (i = 0; i < C_MAX; i++)
		before[i] = counter(i);
}

static u64 delta(int n)
{
	return counter(n) - before[n];
}

static void counted(int n, u64 want, const char *counter_name, const char *what)
{
	u64 v = delta(n);

	expect(v == want, "%s: %s grew by %ld, expected %ld", what, counter_name, v, want);
}

/* Check the VMRUNs, #VMEXITs and lookups of one step, and begin a new step. */
static void step(const char *what, u64 vmruns, u64 hits, u64 fills, u64 rewalks, u64 dropped)
{
	counted(C_VMRUN, vmruns, "vmrun", what);
	counted(C_VMEXIT, vmruns, "vmexit", what);
	counted(C_HIT, hits, "hit", what);
	counted(C_FILL, fills, "fill", what);
	counted(C_REWALK, rewalks, "rewalk", what);
	counted(C_DROPPED, dropped, "dropped", what);
	counted(C_EVICTED, 0, "evicted", what);
	snapshot();
}

/*
 * QEMU's own TLB is empty after each VMRUN and after each flush.  So one lookup for the page of the
 * code follows each of these, and one lookup for each other page follows at its first access.
 */
static void counters_exact(struct vm *vm)
{
	flush(vm, FLUSH_ALL);
	map_old(vm, 0);
	snapshot();
	load(vm, 0);
	counted(C_CTL_0, 1, "ctl_0", "first access");
	step("first access", 1, 1, 1, 0, 0);
	load(vm, 0);
	step("second access", 1, 2, 0, 0, 0);
	store(vm, 0, 1, EXIT_VMMCALL);
	step("store to a clean page", 1, 1, 1, 1, 0);
	store(vm, 0, 1, EXIT_VMMCALL);
	step("store to a dirty page", 1, 2, 0, 0, 0);
	guest_ok(vm, g_invlpg, gva(vm, 0), 0);
	counted(C_INVLPG, 1, "invlpg", "INVLPG");
	step("INVLPG", 1, 1, 0, 0, 1);
	guest_ok(vm, g_invlpg, gva(vm, 0), 0);
	counted(C_INVLPG, 1, "invlpg", "INVLPG");
	step("INVLPG of what is not there", 1, 1, 0, 0, 0);
	load(vm, 0);
	step("access after INVLPG", 1, 1, 1, 0, 0);
	guest_ok(vm, g_reload_cr3, 0, 0);
	counted(C_MOVCR3, 1, "movcr3", "MOV CR3");
	step("MOV CR3: the code's page and page 0", 1, 1, 1, 0, 2);
	load(vm, 0);
	step("access after MOV CR3", 1, 1, 1, 0, 0);
	guest_ok(vm, g_flip_cr4, CR4_PGE, 0);
	counted(C_CREFER, 2, "crefer", "CR4.PGE twice");
	step("CR4.PGE twice: the code's page and page 0, then the code's", 1, 1, 2, 0, 3);
	load(vm, 0);
	step("access after CR4.PGE", 1, 1, 1, 0, 0);
	invlpga(gva(vm, 0), 1);
	counted(C_INVLPGA, 1, "invlpga", "INVLPGA");
	step("INVLPGA", 0, 0, 0, 0, 1);
	load(vm, 0);
	step("access after INVLPGA", 1, 1, 1, 0, 0);
	flush(vm, FLUSH_ALL);
	counted(C_CTL_ALL, 1, "ctl_all", "TLB_CONTROL 1");
	step("TLB_CONTROL 1", 1, 0, 1, 0, 2);
	flush(vm, 2);
	counted(C_CTL_RESERVED, 1, "ctl_reserved", "TLB_CONTROL 2");
	step("TLB_CONTROL 2", 1, 1, 0, 0, 0);
	if (config.by_asid) {
		flush(vm, FLUSH_ASID);
		counted(C_CTL_ASID, 1, "ctl_asid", "TLB_CONTROL 3");
		step("TLB_CONTROL 3", 1, 0, 1, 0, 1);
		flush(vm, FLUSH_NONGLOBAL);
		counted(C_CTL_NONGLOBAL, 1, "ctl_nonglobal", "TLB_CONTROL 7");
		step("TLB_CONTROL 7", 1, 0, 1, 0, 1);
	}
	load(vm, 9);
	step("page fault", 1, 1, 0, 0, 0);
	map_old(vm, 9);
	*pte(vm, 9) &= ~PT_RW;
	load(vm, 9);
	step("read-only page", 1, 1, 1, 0, 0);
	store(vm, 9, 1, EXIT_PF);
	step("store to a read-only page", 1, 1, 0, 1, 0);
	wrmsr(MSR_MTRR_DEFTYPE, rdmsr(MSR_MTRR_DEFTYPE));
	counted(C_OTHER, 1, "other", "MTRR");
	step("MTRR", 0, 0, 0, 0, 1);
}

static void counters_guest_physical(struct vm *vm)
{
	flush(vm, FLUSH_ALL);
	map_old(vm, 0);
	map_old(vm, 1);
	load(vm, 0);
	snapshot();
	load(vm, 1);
	counted(C_NFILL, 1, "nfill", "a new page");
	counted(C_FILL, 1, "fill", "a new page");
	guest_ok(vm, g_invlpg, gva(vm, 1), 0);
	snapshot();
	load(vm, 1);
	counted(C_NFILL, 0, "nfill", "a page that INVLPG dropped");
	expect(delta(C_NHIT) > 0, "nhit did not grow");
	counted(C_NREWALK, 0, "nrewalk", "a page that INVLPG dropped");
	/* D is clear in the nested table, and set in the guest's, which alone would allow the store */
	*pte(vm, 1) |= PT_D;
	flush(vm, FLUSH_ALL);
	load(vm, 1);
	snapshot();
	store(vm, 1, 1, EXIT_VMMCALL);
	counted(C_NREWALK, 1, "nrewalk", "store to a page that is clean in the nested table");
	counted(C_REWALK, 1, "rewalk", "store to a page that is clean in the nested table");
}

static void counters_structure(struct vm *vm)
{
	flush(vm, FLUSH_ALL);
	map_old(vm, 0);
	map_old(vm, 1);
	snapshot();
	load(vm, 0);
	expect(delta(C_PSCFILL) > 0, "pscfill did not grow with the first page of a table");
	snapshot();
	load(vm, 1);
	expect(delta(C_PSCHIT) > 0, "pschit did not grow with the second page of a table");
	counted(C_PSCFILL, 0, "pscfill", "second page of a table");
	guest_ok(vm, g_invlpg, gva(vm, 100), 0);
	/* The same guest-physical page is cached, so the nested tables are not walked */
	*pte(vm, 2) = *pte(vm, 1);
	snapshot();
	load(vm, 2);
	counted(C_PSCHIT, 0, "pschit", "INVLPG drops the upper levels");
}

#define PORT_A20	0x92
#define PORT_SMI	0xb2

/* SMI entry and RSM are two events; masking and unmasking A20 are two more. */
static void counters_other(struct vm *vm)
{
	flush(vm, FLUSH_ALL);
	snapshot();
	outb(PORT_SMI, 0x77);
	inb(0x80);
	inb(0x80);
	counted(C_OTHER, 2, "other", "SMI and RSM");
	snapshot();
	outb(PORT_A20, inb(PORT_A20) & ~3);
	outb(PORT_A20, (inb(PORT_A20) & ~1) | 2);
	counted(C_OTHER, 2, "other", "A20 masked and back");
	snapshot();
	outb(PORT_A20, inb(PORT_A20) & ~1);
	counted(C_OTHER, 0, "other", "A20 as it was");
}

static void counters_per_asid(struct vm *vm)
{
	struct vm *b = vm_like(vm, 5);
	u64 all, one, five;

	flush(vm, FLUSH_ALL);
	wrmsr(MSR_SELECT, 5);
	five = counter(C_VMRUN);
	wrmsr(MSR_SELECT, 1);
	one = counter(C_VMRUN);
	wrmsr(MSR_SELECT, ~0ul);
	all = counter(C_VMRUN);
	expect(rdmsr(MSR_SELECT) == C_MAX, "number of counters: %ld, expected %ld",
	       rdmsr(MSR_SELECT), (u64)C_MAX);
	guest_ok(vm, g_nop, 0, 0);
	guest_ok(b, g_nop, 0, 0);
	guest_ok(b, g_nop, 0, 0);
	expect(counter(C_VMRUN) - all == 3, "vmrun of all ASIDs grew by %ld, expected 3",
	       counter(C_VMRUN) - all);
	wrmsr(MSR_SELECT, 5);
	expect(counter(C_VMRUN) - five == 2, "vmrun of ASID 5 grew by %ld, expected 2",
	       counter(C_VMRUN) - five);
	wrmsr(MSR_SELECT, 1);
	expect(counter(C_VMRUN) - one == 1, "vmrun of ASID 1 grew by %ld, expected 1",
	       counter(C_VMRUN) - one);
	/* An ASID that never ran */
	wrmsr(MSR_SELECT, 14);
	expect(counter(C_VMRUN) == 0, "vmrun of an ASID never used: %ld", counter(C_VMRUN));
	wrmsr(MSR_SELECT, ~0ul);
}

/* Four entries, one of which is for the page of the code, which is looked up at each VMRUN. */
static void capacity_lru(struct vm *vm)
{
	flush(vm, FLUSH_ALL);
	snapshot();
	stale(vm, 0);
	stale(vm, 1);
	stale(vm, 2);
	counted(C_EVICTED, 0, "evicted", "four entries");
	survives(vm, 0, "four entries");
	stale(vm, 3);
	counted(C_EVICTED, 1, "evicted", "a fifth entry");
	survives(vm, 0, "page used after page 1");
	counted(C_EVICTED, 1, "evicted", "a hit");
	gone_for_guest(vm, 1, "the least recently used");
	counted(C_EVICTED, 2, "evicted", "page 1 again, for page 2");
	survives(vm, 0, "page used after page 2");
	gone_for_guest(vm, 2, "the least recently used");
	counted(C_EVICTED, 3, "evicted", "page 2 again, for page 3");
	gone_for_guest(vm, 3, "the least recently used");
	counted(C_EVICTED, 4, "evicted", "page 3 again");
	counted(C_DROPPED, 0, "dropped", "evictions are no flushes");
}

/* The capacity belongs to the processor, not to each ASID. */
static void capacity_shared(struct vm *vm)
{
	struct vm *b = vm_like(vm, 2);

	flush(vm, FLUSH_ALL);
	snapshot();
	stale(vm, 0);
	stale(vm, 1);
	stale(b, 0);
	counted(C_EVICTED, 1, "evicted", "two ASIDs, five entries");
	gone_for_guest(vm, 0, "the least recently used, of the other ASID");
}

/* A flush makes room. */
static void capacity_after_flush(struct vm *vm)
{
	flush(vm, FLUSH_ALL);
	stale(vm, 0);
	stale(vm, 1);
	stale(vm, 2);
	guest_ok(vm, g_invlpg, gva(vm, 1), 0);
	snapshot();
	stale(vm, 3);
	counted(C_EVICTED, 0, "evicted", "INVLPG has made room");
	survives(vm, 0, "INVLPG has made room");
	survives(vm, 2, "INVLPG has made room");
	survives(vm, 3, "INVLPG has made room");
	flush(vm, FLUSH_ALL);
	snapshot();
	map_old(vm, 4);
	map_old(vm, 5);
	map_old(vm, 6);
	load(vm, 4);
	load(vm, 5);
	load(vm, 6);
	counted(C_EVICTED, 0, "evicted", "TLB_CONTROL 1 has made room");
}

static void capacity_one(struct vm *vm)
{
	u64 n, v;

	flush(vm, FLUSH_ALL);
	snapshot();
	for (n = 0; n < 4; n++) {
		map_old(vm, n);
		v = load(vm, n);
		expect(v == old_data(vm, n), "page %ld: read %lx", n, v);
	}
	/* Each VMRUN looks up the page of the code, then that of the data, and each evicts the other. */
	counted(C_EVICTED, 7, "evicted", "a single entry");
}

/* Cycle through more pages than there are entries: LRU would never hit */
static void capacity_random(struct vm *vm)
{
	u64 i, v;

	for (i = 0; i < 8; i++)
		map_old(vm, i);
	flush(vm, FLUSH_ALL);
	snapshot();
	for (i = 0; i < 400; i++) {
		v = load(vm, i & 7);
		expect(v == old_data(vm, i & 7), "page %ld: read %lx", i & 7, v);
	}
	expect(delta(C_EVICTED) > 0, "nothing was evicted");
	expect(delta(C_FILL) < 800 && delta(C_FILL) == delta(C_EVICTED) + 3,
	       "fill %ld, evicted %ld", delta(C_FILL), delta(C_EVICTED));
	/* More hits than the page of the code alone would give under LRU */
	expect(delta(C_HIT) + delta(C_FILL) == 800, "hit %ld, fill %ld", delta(C_HIT),
	       delta(C_FILL));
	diag("random: hit %ld, fill %ld, evicted %ld", delta(C_HIT), delta(C_FILL),
	     delta(C_EVICTED));
}

void capacity_tests(void)
{
	static const struct test tests[] = {
		{ "capacity-lru", capacity_lru, ALL_MODES },
		{ "capacity-shared-by-asids", capacity_shared, ALL_MODES },
		{ "capacity-after-flush", capacity_after_flush, ALL_MODES },
	};
	static const struct test one[] = {
		{ "capacity-one", capacity_one, ALL_MODES },
	};
	static const struct test random[] = {
		{ "capacity-random", capacity_random, ALL_MODES },
	};

	run_tests("capacity", tests, ARRAY_SIZE(tests));
	run_tests("capacity-one", one, ARRAY_SIZE(one));
	run_tests("capacity-random", random, ARRAY_SIZE(random));
}

static void counters_totals(struct vm *vm)
{
	static const char *const names[] = {
		"vmrun", "vmexit", "hit", "fill", "rewalk", "nhit", "nfill", "nrewalk",
		"pschit", "pscfill", "ctl_0", "ctl_all", "ctl_asid", "ctl_nonglobal",
		"ctl_reserved", "invlpga", "invlpg", "movcr3", "crefer", "other", "dropped",
		"evicted", "stale", "stale_rights", "audit", "audit_rights", "window",
		"clean_reload", "clean_hit", "movcr3_noflush", "invpcid", "invlpgb", "tlbsync",
	};
	u64 n;

	(void)vm;
	_Static_assert(ARRAY_SIZE(names) == C_MAX, "");
	for (n = 0; n < C_MAX; n++)
		diag("total %s=%ld", names[n], counter(n));
	expect(counter(C_VMRUN) == counter(C_VMEXIT), "vmrun %ld, vmexit %ld", counter(C_VMRUN),
	       counter(C_VMEXIT));
}

void counter_tests(void)
{
	static const struct test tests[] = {
		{ "counters-exact", counters_exact, ALL_MODES },
		{ "counters-guest-physical", counters_guest_physical, BOTH_NPT },
		{ "counters-structure-caches", counters_structure, ALL_MODES },
		{ "counters-other", counters_other, NPT_OFF },
		{ "counters-per-asid", counters_per_asid, ALL_MODES },
	};

	static const struct test totals[] = {
		{ "counters-totals", counters_totals, 0 },
	};

	run_tests("counters", tests, ARRAY_SIZE(tests));
	/* Print these last: the runner compares them with the file that QEMU writes at exit. */
	run_tests("counters", totals, ARRAY_SIZE(totals));
}

/* The oracle checks the nested tables only. */
static void oracle_hit(struct vm *vm)
{
	u64 per_hit = config.oracle & 1 && vm->mode == NESTED_TABLE;

	stale(vm, 0);
	snapshot();
	survives(vm, 0, "first");
	counted(C_STALE, per_hit, "stale", "one hit");
	survives(vm, 0, "second");
	survives(vm, 0, "third");
	counted(C_STALE, 3 * per_hit, "stale", "three hits");
	flush_guest(vm);
	snapshot();
	gone(vm, 0, "flush");
	gone(vm, 0, "again");
	counted(C_STALE, 0, "stale", "flushed");
	counted(C_STALE_RIGHTS, 0, "stale_rights", "flushed");
	/* Raised rights are not stale. */
	map_old(vm, 1);
	*(vm->mode == NESTED_TABLE ? npte(vm, 1) : pte(vm, 1)) &= ~PT_RW;
	load(vm, 1);
	*(vm->mode == NESTED_TABLE ? npte(vm, 1) : pte(vm, 1)) |= PT_RW;
	load(vm, 1);
	counted(C_STALE, 0, "stale", "rights raised");
	counted(C_STALE_RIGHTS, 0, "stale_rights", "rights raised");
}

static void oracle_rights(struct vm *vm)
{
	map_old(vm, 0);
	store(vm, 0, old_data(vm, 0), EXIT_VMMCALL);
	*npte(vm, 0) &= ~PT_RW;
	snapshot();
	load(vm, 0);
	counted(C_STALE, 0, "stale", "right to write taken away");
	counted(C_STALE_RIGHTS, config.oracle & 1, "stale_rights", "right to write taken away");
	flush_guest(vm);
	snapshot();
	load(vm, 0);
	counted(C_STALE_RIGHTS, 0, "stale_rights", "flushed");
}

static void oracle_not_present(struct vm *vm)
{
	map_old(vm, 0);
	load(vm, 0);
	*npte(vm, 0) &= ~PT_P;
	snapshot();
	expect(load(vm, 0) == old_data(vm, 0), "not there any more, not flushed");
	counted(C_STALE, config.oracle & 1, "stale", "not there any more");
	flush_guest(vm);
	load(vm, 0);
	expect(vm->vmcb->exit_code == EXIT_NPF, "exit code %lx", vm->vmcb->exit_code);
}

/* At VMRUN, each stale entry is reported once, even if VMRUN finds it again or the guest uses it. */
static void oracle_audit(struct vm *vm)
{
	bool on = config.oracle & 2 && vm->mode == NESTED_TABLE;
	u64 first;

	map_old(vm, 1);
	load(vm, 1);
	stale(vm, 0);
	snapshot();
	flush(vm, KEEP);
	first = delta(C_AUDIT);
	/* One entry by virtual address, one by guest-physical address */
	expect(first == (on ? 2 : 0), "audit grew by %ld", first);
	flush(vm, KEEP);
	survives(vm, 0, "audited");
	counted(C_AUDIT, first, "audit", "entered again");
	counted(C_AUDIT_RIGHTS, 0, "audit_rights", "entered again");
	flush_guest(vm);
	snapshot();
	gone(vm, 0, "flush");
	flush(vm, KEEP);
	counted(C_AUDIT, 0, "audit", "flushed");
}

/* If a large page was split and one piece changed, the oracle finds it although the rest is unchanged. */
static void oracle_split(struct vm *vm)
{
	u64 page = (u64)alloc(SIZE_2M), *pde, *table = alloc(PAGE_SIZE), i;

	memset((void *)page, 0, 4 * PAGE_SIZE);
	*entry(vm->cr3, vm->va, 2) = vm->pa | PT_P | PT_RW | PT_PS;
	pde = entry(vm->ncr3, vm->pa, 2);
	*pde = page | PT_P | PT_RW | PT_US | PT_PS;
	expect(load(vm, 0) == 0, "first access");
	for (i = 0; i < 512; i++)
		table[i] = (page + i * PAGE_SIZE) | PT_P | PT_RW | PT_US;
	*pde = (u64)table | PT_P | PT_RW | PT_US;
	snapshot();
	load(vm, 0);
	load(vm, 3);
	counted(C_STALE, 0, "stale", "split, nothing else changed");
	counted(C_AUDIT, 0, "audit", "split, nothing else changed");
	table[3] = (u64)data_page(1) | PT_P | PT_RW | PT_US;
	snapshot();
	load(vm, 0);
	counted(C_STALE, 0, "stale", "another piece");
	expect(!delta(C_AUDIT) == !(config.oracle & 2), "a piece changed: audit grew by %ld",
	       delta(C_AUDIT));
	load(vm, 3);
	counted(C_STALE, config.oracle & 1, "stale", "the piece");
	flush_guest(vm);
	snapshot();
	expect(load(vm, 3) == 1, "flush");
	counted(C_STALE, 0, "stale", "flushed");
	counted(C_AUDIT, 0, "audit", "flushed");
}

/* Entries that the same VMRUN flushes are not reported as stale. */
static void oracle_audit_after_flush(struct vm *vm)
{
	stale(vm, 0);
	snapshot();
	flush_guest(vm);
	counted(C_AUDIT, 0, "audit", "the VMRUN that flushes");
	counted(C_STALE, 0, "stale", "the VMRUN that flushes");
}

#define PM_TIMER	0x608	/* 24 bits, at the port that the firmware chose */
#define PM_TIMER_HZ	3579545

static void wait_a_second(void)
{
	u32 start = inl(PM_TIMER);

	while (((inl(PM_TIMER) - start) & 0xffffff) < PM_TIMER_HZ * 6 / 5)
		asm volatile("pause");
}

/* Hypervisors batch flushes for lowered rights: these may be late, but not by a second. */
static void oracle_audit_rights(struct vm *vm)
{
	u64 rights;

	map_old(vm, 0);
	store(vm, 0, old_data(vm, 0), EXIT_VMMCALL);
	*npte(vm, 0) &= ~PT_RW;
	snapshot();
	flush(vm, KEEP);
	counted(C_AUDIT_RIGHTS, 0, "audit_rights", "right to write taken away just now");
	expect(!delta(C_WINDOW) == !(config.oracle & 2), "window grew by %ld", delta(C_WINDOW));
	if (config.oracle & 2)
		wait_a_second();
	flush(vm, KEEP);
	rights = delta(C_AUDIT_RIGHTS);
	/* One entry by virtual address, one by guest-physical address */
	expect(rights == (config.oracle & 2 ? 2 : 0), "audit_rights grew by %ld", rights);
	flush(vm, KEEP);
	counted(C_AUDIT_RIGHTS, rights, "audit_rights", "entered again");
	counted(C_AUDIT, 0, "audit", "right to write taken away");
	flush_guest(vm);
	snapshot();
	flush(vm, KEEP);
	counted(C_AUDIT_RIGHTS, 0, "audit_rights", "flushed");
}

/* The oracle does not check the ASID of another guest. */
static void oracle_other_asid(struct vm *vm)
{
	struct vm *b = vm_like(vm, 2);

	stale(vm, 0);
	guest_ok(b, g_nop, 0, 0);
	snapshot();
	guest_ok(b, g_nop, 0, 0);
	counted(C_AUDIT, 0, "audit", "another ASID runs");
	flush_guest(vm);
}

void oracle_tests(void)
{
	static const struct test tests[] = {
		{ "oracle-hit", oracle_hit, ALL_MODES },
		{ "oracle-rights", oracle_rights, NESTED_TABLE },
		{ "oracle-not-present", oracle_not_present, NESTED_TABLE },
		{ "oracle-audit", oracle_audit, ALL_MODES },
		{ "oracle-split", oracle_split, NESTED_TABLE },
		{ "oracle-audit-after-flush", oracle_audit_after_flush, ALL_MODES },
		{ "oracle-audit-rights", oracle_audit_rights, NESTED_TABLE },
		{ "oracle-other-asid", oracle_other_asid, ALL_MODES },
	};

	run_tests("oracle", tests, ARRAY_SIZE(tests));
}
