// SPDX-License-Identifier: GPL-2.0-only
/* Many ASIDs, several processors, a machine that was reset. */
#include "rules.h"

#define TRIES		200

static u32 asids(void)
{
	return cpuid(0x8000000a, 0).b;
}

static void asid_count(struct vm *vm)
{
	(void)vm;
	expect(!config.asids || asids() == config.asids, "CPUID says %ld ASIDs, expected %ld",
	       (u64)asids(), (u64)config.asids);
}

/* Run one guest under all ASIDs: each has its own translations, and TLB_CONTROL 1 flushes all of them. */
static void asids_all(struct vm *vm)
{
	u32 asid, n = asids();

	map_old(vm, 0);
	for (asid = 1; asid < n; asid++) {
		vm->vmcb->asid = asid;
		expect(load(vm, 0) == old_data(vm, 0), "ASID %ld, first access", (u64)asid);
	}
	map_new(vm, 0);
	for (asid = 1; asid < n; asid++) {
		vm->vmcb->asid = asid;
		survives(vm, 0, "all ASIDs in use");
	}
	if (config.by_asid) {
		vm->vmcb->asid = n / 2;
		flush(vm, FLUSH_ASID);
		gone(vm, 0, "TLB_CONTROL 3");
		vm->vmcb->asid = n / 2 + 1;
		survives(vm, 0, "TLB_CONTROL 3 with the ASID before");
		vm->vmcb->asid = n / 2 - 1;
		survives(vm, 0, "TLB_CONTROL 3 with the ASID after");
	}
	vm->vmcb->asid = n - 1;
	flush(vm, FLUSH_ALL);
	for (asid = 1; asid < n; asid++) {
		vm->vmcb->asid = asid;
		gone(vm, 0, "TLB_CONTROL 1");
	}
}

void asid_tests(void)
{
	static const struct test tests[] = {
		{ "asid-count", asid_count, 0 },
		{ "asids-all", asids_all, NPT_OFF | NESTED_TABLE },
	};

	run_tests("asids", tests, ARRAY_SIZE(tests));
}

/* The guest that the second CPU is to run, and its result */
static struct vm *there;
static u64 there_saw;
static enum tlb_control there_control;

static void second_runs(void)
{
	there->vmcb->tlb_control = there_control;
	there_saw = load(there, 0);
	there->vmcb->tlb_control = KEEP;
}

static u64 second_sees(struct vm *vm, enum tlb_control how)
{
	there = vm;
	there_control = how;
	on_second_cpu(second_runs);
	return there_saw;
}

/* Each processor has a TLB of its own. */
static void per_processor(struct vm *vm)
{
	u64 v;

	stale(vm, 0);
	v = second_sees(vm, KEEP);
	expect(v == new_data(vm, 0), "a processor where it never ran: read %lx", v);
	survives(vm, 0, "it ran elsewhere");
	second_sees(vm, FLUSH_ALL);
	survives(vm, 0, "TLB_CONTROL 1 elsewhere");
	flush_guest(vm);
	gone(vm, 0, "flush");
}

/* Both have cached translations; a flush on one processor does not flush the other. */
static void per_processor_flush(struct vm *vm)
{
	u64 v;

	map_old(vm, 0);
	load(vm, 0);
	second_sees(vm, KEEP);
	map_new(vm, 0);
	survives(vm, 0, "first processor");
	v = second_sees(vm, KEEP);
	expect(v == (config.model ? old_data(vm, 0) : new_data(vm, 0)),
	       "second processor: read %lx", v);
	flush_guest(vm);
	gone(vm, 0, "flush");
	v = second_sees(vm, KEEP);
	expect(v == (config.model ? old_data(vm, 0) : new_data(vm, 0)),
	       "second processor, flushed on the first: read %lx", v);
	v = second_sees(vm, FLUSH_ALL);
	expect(v == new_data(vm, 0), "second processor, flushed: read %lx", v);
}

static void second_invlpga(void)
{
	invlpga(gva(there, 0), 1);
}

static void second_mtrr(void)
{
	wrmsr(MSR_MTRR_DEFTYPE, rdmsr(MSR_MTRR_DEFTYPE));
}

static void per_processor_events(struct vm *vm)
{
	stale(vm, 0);
	there = vm;
	on_second_cpu(second_invlpga);
	survives(vm, 0, "INVLPGA elsewhere");
	on_second_cpu(second_mtrr);
	survives(vm, 0, "MTRR elsewhere");
	flush_guest(vm);
	gone(vm, 0, "flush");
}

/* The manual contradicts itself about INIT; the model flushes. */
static void init_flushes(struct vm *vm)
{
	u64 v;

	map_old(vm, 0);
	second_sees(vm, KEEP);
	map_new(vm, 0);
	v = second_sees(vm, KEEP);
	expect(v == (config.model ? old_data(vm, 0) : new_data(vm, 0)),
	       "second processor: read %lx", v);
	stale(vm, 1);
	restart_second_cpu();
	v = second_sees(vm, KEEP);
	expect(v == new_data(vm, 0), "second processor after INIT: read %lx", v);
	survives(vm, 1, "INIT of the other processor");
	flush_guest(vm);
	gone(vm, 1, "flush");
}

static u64 cr2_of_second;

static void second_reads_cr2(void)
{
	cr2_of_second = guest(there, g_read_cr2, 0, 0);
}

/* A clean field has the value that this processor cached, even if the VMCB has run elsewhere since. */
static void clean_per_processor(struct vm *vm)
{
	u64 v;

	there = vm;
	vm->vmcb->cr2 = 0x5000;
	guest_ok(vm, g_read_cr2, 0, 0);
	vm->vmcb->cr2 = 0x6000;
	vm->vmcb->clean = 1 << CLEAN_CR2;
	on_second_cpu(second_reads_cr2);
	expect(cr2_of_second == 0x6000, "CR2 where the VMCB never ran, marked clean: %lx",
	       cr2_of_second);
	v = guest(vm, g_read_cr2, 0, 0);
	expect(v == (config.clean ? 0x5000 : 0x6000),
	       "CR2 after the VMCB ran elsewhere, marked clean: %lx", v);
	vm->vmcb->clean = 0;
	vm->vmcb->cr2 = 0x7000;
	v = guest(vm, g_read_cr2, 0, 0);
	expect(v == 0x7000, "CR2, marked dirty: %lx", v);
}

/*
 * The oracle's limits are 10 ms and 1 s.  The TSC counts nanoseconds with icount, and otherwise
 * ticks of the host, whose rate is taken to be between 0.5 and 10 GHz.
 */
#define LESS_THAN_10_MS	5000000
#define MORE_THAN_10_MS	100000000
#define LESS_THAN_1_S	500000000

static void wait_for_10_ms(void)
{
	u64 end = rdtsc() + MORE_THAN_10_MS;

	while (rdtsc() < end)
		;
}

/*
 * With several processors, a hypervisor may enter a guest between the change of a table and the
 * interrupt that requests the flush.  It may also be on its way into the guest when the interrupt
 * arrives, and takes it after an immediate #VMEXIT.  So for a second, an old translation is not
 * stale before this processor has taken the interrupt.
 */
static void oracle_window(struct vm *vm)
{
	u64 audit, window, begin;

	cpu_count_interrupts(IPI_VECTOR);
	/* The second processor must run already, because starting it takes time. */
	on_second_cpu(interrupt_first_cpu);
	cpu_take_interrupts();
	cpu_count_interrupts(IPI_VECTOR);
	/* What other tests left could be reported at any time. */
	flush(vm, FLUSH_ALL);
	stale(vm, 0);
	audit = counter(C_AUDIT);
	window = counter(C_WINDOW);
	begin = rdtsc();
	flush(vm, KEEP);
	flush(vm, KEEP);
	expect(counter(C_AUDIT) == audit, "audit grew by %ld before the interrupt",
	       counter(C_AUDIT) - audit);
	expect(counter(C_WINDOW) > window, "window did not grow");
	window = counter(C_WINDOW);
	on_second_cpu(interrupt_first_cpu);
	wait_for_10_ms();
	flush(vm, KEEP);
	if (rdtsc() - begin > LESS_THAN_1_S)
		return skip("the host is too busy");
	expect(!interrupts_taken, "the interrupt is not pending");
	expect(counter(C_AUDIT) == audit, "audit grew by %ld while the interrupt was pending",
	       counter(C_AUDIT) - audit);
	cpu_take_interrupts();
	expect(interrupts_taken == 1, "%ld interrupts, expected 1", interrupts_taken);
	flush(vm, KEEP);
	expect(counter(C_AUDIT) > audit, "audit did not grow after the interrupt");
	expect(counter(C_WINDOW) == window, "window grew by %ld once more",
	       counter(C_WINDOW) - window);
	audit = counter(C_AUDIT);
	flush(vm, KEEP);
	expect(counter(C_AUDIT) == audit, "audit grew again, by %ld", counter(C_AUDIT) - audit);
	flush_guest(vm);

	/* Flushed in time */
	map_old(vm, 1);
	load(vm, 1);
	map_new(vm, 1);
	flush(vm, KEEP);
	on_second_cpu(interrupt_first_cpu);
	cpu_take_interrupts();
	wait_for_10_ms();
	flush_guest(vm);
	gone(vm, 1, "flush");
	expect(counter(C_AUDIT) == audit, "audit grew by %ld, flushed in time",
	       counter(C_AUDIT) - audit);
}

/* The interrupt may be about something else: the oracle waits for 10 ms as well. */
static void oracle_other_interrupt(struct vm *vm)
{
	u64 audit, begin, took, tries = 0;

	cpu_count_interrupts(IPI_VECTOR);
	/* The second processor must run already, because starting it takes time. */
	on_second_cpu(interrupt_first_cpu);
	do {
		cpu_take_interrupts();
		flush(vm, FLUSH_ALL);
		stale(vm, 0);
		audit = counter(C_AUDIT);
		begin = rdtsc();
		flush(vm, KEEP);
		on_second_cpu(interrupt_first_cpu);
		cpu_take_interrupts();
		flush(vm, KEEP);
		took = rdtsc() - begin;
		/* A host that is busy with other things may take longer. */
	} while (took > LESS_THAN_10_MS && ++tries < TRIES);
	if (tries < TRIES)
		expect(counter(C_AUDIT) == audit, "audit grew by %ld at once",
		       counter(C_AUDIT) - audit);
	else
		skip("the host is too busy to see what happens within 10 ms");
	wait_for_10_ms();
	flush(vm, KEEP);
	expect(counter(C_AUDIT) > audit, "audit did not grow after 10 ms");
	flush_guest(vm);
}

void smp_tests(void)
{
	static const struct test oracle[] = {
		{ "oracle-window", oracle_window, NESTED_TABLE },
		{ "oracle-other-interrupt", oracle_other_interrupt, NESTED_TABLE },
	};
	static const struct test tests[] = {
		{ "per-processor", per_processor, ALL_MODES },
		{ "per-processor-flush", per_processor_flush, ALL_MODES },
		{ "per-processor-events", per_processor_events, ALL_MODES },
		{ "init", init_flushes, ALL_MODES },
		{ "clean-per-processor", clean_per_processor, ALL_MODES },
	};

	run_tests("smp", tests, ARRAY_SIZE(tests));
	if (config.oracle & 2)
		run_tests("smp", oracle, ARRAY_SIZE(oracle));
}

/* This address survives a reset: it is outside the image, the pool and the firmware. */
#define LEFT		((struct vm **)(62ul << 20))
#define MAGIC		((struct vm *)0x7265736574)
#define PORT_RESET	0xcf9

/* RAM keeps its contents, so the guests with stale translations can run again after the reset. */
static void reset(struct vm *unused)
{
	struct vm **left = LEFT, *vm;
	int mode, i;

	(void)unused;
	if (left[0] != MAGIC) {
		for (mode = NPT_OFF, i = 1; mode <= NESTED_TABLE; mode <<= 1, i++) {
			vm_new_window();
			vm = vm_new(mode, i);
			stale(vm, 0);
			survives(vm, 0, "before the reset");
			left[i] = vm;
		}
		left[0] = MAGIC;
		left[4] = (struct vm *)(u64)failed_so_far();
		outb(PORT_RESET, 2);
		outb(PORT_RESET, 6);
		for (;;)
			asm volatile("hlt");
	}
	left[0] = NULL;
	expect(!left[4], "nothing was cached before the reset");
	for (i = 1; i <= 3; i++)
		gone(left[i], 0, "reset");
}

void reset_tests(void)
{
	static const struct test tests[] = {
		{ "reset", reset, 0 },
	};

	run_tests("reset", tests, ARRAY_SIZE(tests));
}
