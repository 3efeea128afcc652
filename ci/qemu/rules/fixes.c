// SPDX-License-Identifier: GPL-2.0-only
/*
 * What ci/qemu/fixes fix.  Each test fails on a QEMU without the fix; docs/qemu-fixes.md says which one.
 * None of them needs the model.
 */
#include "rules.h"

#define PORT_PIC2	0xa0
#define PORT_FERR	0xf0
#define PIC2_IRQ13	(1 << 5)
#define MSR_SYSENTER_ESP	0x175
#define MSR_SYSENTER_EIP	0x176
#define DR7_GD		(1ul << 13)
#define RFLAGS_IF	(1ul << 9)
#define RFLAGS_OF	(1ul << 11)
#define NON_CANONICAL	(1ul << 63)
#define GIGA		1000000000ul
#define INTERRUPTS	3000
#define TRIES		5000
#define PATCHES		20000
#define VECTOR		IPI_VECTOR

enum { DB = 1, BP = 3, OF = 4, UD = 6, DF = 8, NP = 11, GP = 13 };

static u8 tss[104], tss_stack[1024] __attribute__((aligned(16)));

/* Run the guest, and check how it ended. */
static void ends(struct vm *vm, guest_code *code, u64 rdi, u64 rsi, u64 exit_code)
{
	u64 rax = guest(vm, code, rdi, rsi);

	expect(vm->vmcb->exit_code == exit_code,
	       "exit code %lx, expected %lx (RAX %lx, information %lx %lx)", vm->vmcb->exit_code,
	       exit_code, rax, vm->vmcb->exit_info1, vm->vmcb->exit_info2);
}

static void ends_in_handler(struct vm *vm, guest_code *code, u64 vector)
{
	ends(vm, code, 0, 0, EXIT_VMMCALL);
	expect(vm->vmcb->rax == vector, "RAX %lx, expected that of the handler of vector %lx",
	       vm->vmcb->rax, vector);
}

static volatile u64 sent;
static volatile bool stop;

static void send(void)
{
	while (!stop) {
		if (sent == interrupts_taken) {
			interrupt_first_cpu();
			sent++;
		}
	}
}

/* Interrupts from the other processor arrive while VMRUN raises a virtual one. */
static void vmrun_keeps_interrupts(struct vm *vm)
{
	u64 last = 0, tries = 0;

	vm->vmcb->int_ctl = V_INTR_MASKING | V_IRQ | V_INTR_PRIO(5);
	vm->vmcb->int_vector = VECTOR;
	vm->vmcb->intercept1 |= INTERCEPT_VINTR;
	vm->rflags = RFLAGS_IF;
	cpu_count_interrupts(IPI_VECTOR);
	sent = 0;
	stop = false;
	start_on_second_cpu(send);
	while (interrupts_taken < INTERRUPTS && tries < TRIES && !failed_so_far()) {
		ends(vm, g_nop, 0, 0, EXIT_VINTR);
		cpu_take_interrupts();
		/* Those that are sent are taken here, unless the processor does not know that they are pending. */
		tries = interrupts_taken == last && sent > last ? tries + 1 : 0;
		last = interrupts_taken;
	}
	stop = true;
	wait_for_second_cpu();
	expect(tries < TRIES, "interrupt %ld was lost", interrupts_taken + 1);
}

/* mov $PATCHED, %eax; ret.  The first function has a page to itself, the second one shares it with the functions that follow. */
asm(".pushsection .text\n"
    ".balign 4096\n"
    "patched_alone: .byte 0xb8, 0, 0, 0, 0, 0xc3\n"
    ".balign 4096\n"
    "patched_with_others: .byte 0xb8, 0, 0, 0, 0, 0xc3\n"
    ".popsection");
extern u8 patched_alone[], patched_with_others[];

static volatile u8 *volatile patched;
static volatile u32 patches, seen, returned;

static void run_patched(void)
{
	u32 n, value;

	while (!stop) {
		n = patches;
		cpuid(0, 0);
		value = ((u32 (*)(void))patched)();
		if (n != seen) {
			returned = value;
			seen = n;
		}
	}
}

/* The other processor runs code while this one changes it, executes a serializing instruction, and must run the new code from then on. */
static void patched_code(struct vm *vm)
{
	volatile u8 *const code[] = { patched_alone, patched_with_others };
	u32 n, i;

	(void)vm;
	for (i = 0; i < ARRAY_SIZE(code) && !failed_so_far(); i++) {
		patched = code[i];
		patches = seen = 0;
		stop = false;
		start_on_second_cpu(run_patched);
		for (n = 1; n <= PATCHES && !failed_so_far(); n++) {
			patched[1] = n;
			patches = n;
			while (seen != n)
				asm volatile("pause");
			expect((u8)returned == (u8)n, "patch %ld of %s: the code is that of patch %ld", (u64)n,
			       i ? "a page with other code" : "a page without other code", (u64)returned);
		}
		stop = true;
		wait_for_second_cpu();
	}
}

/* V_IRQ becomes deliverable because the guest lowers V_TPR. */
static void cr8_raises_virq(struct vm *vm)
{
	vm->vmcb->int_ctl = V_INTR_MASKING | V_IRQ | V_INTR_PRIO(5) | 15;
	vm->vmcb->int_vector = VECTOR;
	vm->vmcb->intercept1 |= INTERCEPT_VINTR;
	vm->rflags = RFLAGS_IF;
	ends(vm, g_write_cr8, 0, 0, EXIT_VINTR);
}

static void clear_second_cpus_x87(void)
{
	static u8 state[512] __attribute__((aligned(16)));

	asm volatile("fxrstor %0" : : "m"(state));
}

static u8 irq13(void)
{
	outb(PORT_PIC2, 0x0a);		/* read the requests next */
	return inb(PORT_PIC2) & PIC2_IRQ13;
}

static void forget_irq13(void)
{
	outb(PORT_PIC2, 0x11);
	outb(PORT_PIC2 + 1, 0x70);
	outb(PORT_PIC2 + 1, 2);
	outb(PORT_PIC2 + 1, 1);
	outb(PORT_PIC2 + 1, 0xff);
}

/* This processor ignores its pending exception, as MS-DOS does it.  The other processor must not change that. */
static void ignne_per_processor(struct vm *vm)
{
	u16 unmask_all = 0x340;

	(void)vm;
	forget_irq13();
	asm volatile("fninit; fldcw %0; fld1; fldz; fdivrp; fwait" : : "m"(unmask_all));
	expect(irq13(), "an x87 exception raised no IRQ 13");
	outb(PORT_FERR, 0);
	forget_irq13();
	asm volatile("fwait");
	expect(!irq13(), "IRQ 13 in spite of IGNNE");
	on_second_cpu(clear_second_cpus_x87);
	asm volatile("fwait");
	expect(!irq13(), "IRQ 13 in spite of IGNNE, after FXRSTOR on the other processor");
	asm volatile("fninit");
}

/* The IDT is empty, so that #UD causes #GP, which causes another #GP. */
static void double_fault_intercept(struct vm *vm)
{
	vm->vmcb->intercept_exceptions = 1u << DF;
	ends(vm, g_ud2, 0, 0, EXIT_EXCP(DF));
}

/* A fault while #DF is delivered is a shutdown. */
static void injected_exception_counts(struct vm *vm)
{
	with_handlers(vm);
	guest_idt[DF].type &= ~0x80;
	vm->vmcb->event_inj = EVENT_VALID | EVENT_ERROR_CODE | EVENT_EXCEPTION | DF;
	ends(vm, g_nop, 0, 0, EXIT_SHUTDOWN);
}

static void sysenter_compat_mode(struct vm *vm)
{
	vm->vmcb->cs.attrib = 0xc9b;
	ends(vm, g32_sysenter, 0, 0, EXIT_EXCP(UD));
}

static void sysenter_msrs_32_bit(struct vm *vm)
{
	u32 msr;
	u64 v;

	(void)vm;
	for (msr = MSR_SYSENTER_ESP; msr <= MSR_SYSENTER_EIP; msr++) {
		wrmsr(msr, 0x123456789abcdef0);
		v = rdmsr(msr);
		expect(v == 0x9abcdef0, "MSR %lx reads %lx", (u64)msr, v);
		wrmsr(msr, 0);
	}
}

static void wrmsr_non_canonical(struct vm *vm)
{
	/* LSTAR, CSTAR, FS.base, GS.base, KERNEL_GS_BASE */
	static const u32 msrs[] = { 0xc0000082, 0xc0000083, 0xc0000100, 0xc0000101, 0xc0000102 };
	u64 old;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(msrs); i++) {
		old = rdmsr(msrs[i]);
		ends(vm, g_wrmsr, msrs[i], NON_CANONICAL, EXIT_EXCP(GP));
		ends(vm, g_wrmsr, msrs[i], old, EXIT_VMMCALL);
	}
}

static void int3_intercept(struct vm *vm)
{
	with_handlers(vm);
	vm->vmcb->intercept_exceptions = 1u << BP;
	ends(vm, g_int3, 0, 0, EXIT_EXCP(BP));
	expect(vm->vmcb->rip == (u64)g_int3, "RIP %lx, expected that of INT3, %lx", vm->vmcb->rip,
	       (u64)g_int3);
}

static void int3_is_not_intn(struct vm *vm)
{
	with_handlers(vm);
	vm->vmcb->intercept1 |= INTERCEPT_INTN;
	ends_in_handler(vm, g_int3, BP);
	ends(vm, g_int_40, 0, 0, EXIT_SWINT);
}

static void into_intercept(struct vm *vm)
{
	vm->vmcb->cs.attrib = 0xc9b;
	vm->rflags = RFLAGS_OF;
	vm->vmcb->intercept_exceptions = 1u << OF;
	ends(vm, g32_into, 0, 0, EXIT_EXCP(OF));
}

static bool has(u32 bit, const char *feature)
{
	bool is = cpuid(0x8000000a, 0).d >> bit & 1;

	expect(is, "CPUID has no %s", feature);
	return is;
}

/* INT 40h without an intercept, injected: the return address is nRIP. */
static void next_rip(struct vm *vm)
{
	struct vmcb *c = vm->vmcb;

	if (!has(3, "NRIPS"))
		return;
	c->intercept1 |= INTERCEPT_CPUID;
	ends(vm, g_cpuid, 0, 0, EXIT_CPUID);
	expect(c->nrip == c->rip + 2, "nRIP %lx after CPUID at %lx", c->nrip, c->rip);
	ends(vm, g_ud2, 0, 0, EXIT_EXCP(UD));
	expect(!c->nrip, "nRIP %lx after #UD", c->nrip);
	with_handlers(vm);
	guest_idt[VECTOR] = gate(g_return);
	c->event_inj = EVENT_VALID | EVENT_SOFT | VECTOR;
	c->nrip = 0x123456;
	ends(vm, g_nop, 0, 0, EXIT_VMMCALL);
	expect(c->rax == 0x123456, "the return address is %lx, expected nRIP, 0x123456", c->rax);
}

/* A guest in user mode must not reach a handler with DPL 0 by an injected #BP, as it cannot by INT3. */
static void injected_bp_dpl(struct vm *vm)
{
	struct vmcb *c = vm->vmcb;
	u64 vmcb = (u64)c;

	with_handlers(vm);
	*entry(vm->cr3, (u64)tss & ~(SIZE_2M - 1), 2) |= PT_US;
	*entry(vm->cr3, (u64)tss & ~(SIZE_2M - 1), 3) |= PT_US;
	*(u64 *)(tss + 4) = (u64)tss_stack + sizeof(tss_stack);
	c->tr = (struct vmcb_seg){ .selector = 0x40, .attrib = 0x8b, .limit = sizeof(tss) - 1,
				   .base = (u64)tss };
	asm volatile("vmload" : : "a"(vmcb) : "memory");
	c->cs = (struct vmcb_seg){ .selector = 0x2b, .attrib = 0xafb, .limit = ~0u };
	c->ss = (struct vmcb_seg){ .selector = 0x33, .attrib = 0xcf3, .limit = ~0u };
	c->cpl = 3;
	c->intercept_exceptions = 1u << GP;
	c->event_inj = EVENT_VALID | EVENT_EXCEPTION | BP;
	c->nrip = (u64)g_nop;
	ends(vm, g_nop, 0, 0, EXIT_EXCP(GP));
	expect(c->exit_info1 == BP * 8 + 2, "#GP has the error code %lx", c->exit_info1);
}

static void read_cr3_intercept(struct vm *vm)
{
	vm->vmcb->intercept_cr_read = 1 << 3;
	ends(vm, g_read_cr3, 0, 0, EXIT_CR_READ(3));
	ends(vm, g_read_cr0, 0, 0, EXIT_VMMCALL);
}

static void read_cr0_intercept(struct vm *vm)
{
	vm->vmcb->intercept_cr_read = 1 << 0;
	ends(vm, g_read_cr0, 0, 0, EXIT_CR_READ(0));
	ends(vm, g_read_cr4, 0, 0, EXIT_VMMCALL);
}

static void dr7_gd_first(struct vm *vm)
{
	vm->vmcb->intercept_dr_read = 0xffff;
	vm->vmcb->dr7 |= DR7_GD;
	ends(vm, g_read_dr6, 0, 0, EXIT_EXCP(DB));
}

static void cr4_de_first(struct vm *vm)
{
	vm->vmcb->intercept_dr_read = 0xffff;
	vm->vmcb->cr4 |= CR4_DE;
	ends(vm, g_read_dr4, 0, 0, EXIT_EXCP(UD));
}

static void decode_assists(struct vm *vm)
{
	static const u8 bytes[] = { 0x48, 0x8b, 0x07 };		/* mov (%rdi), %rax */
	struct vmcb *c = vm->vmcb;
	u32 i;

	if (!has(7, "DecodeAssists"))
		return;
	c->intercept_cr_write = 1 << 3;
	ends(vm, g_movcr3, 0, 0, EXIT_CR_WRITE(3));
	expect(c->exit_info1 == (1ul << 63 | 7), "MOV CR3: EXITINFO1 %lx", c->exit_info1);
	c->intercept1 |= INTERCEPT_INVLPG | INTERCEPT_INTN;
	ends(vm, g_invlpg, 0x12345678, 0, EXIT_INVLPG);
	expect(c->exit_info1 == 0x12345678, "INVLPG: EXITINFO1 %lx", c->exit_info1);
	ends(vm, g_int_40, 0, 0, EXIT_SWINT);
	expect(c->exit_info1 == 0x40, "INT 40h: EXITINFO1 %lx", c->exit_info1);
	*pte(vm, 0) = vm->pa | PT_P | PT_RW;
	ends(vm, g_load, gva(vm, 0), 0, EXIT_NPF);
	expect(c->insn_len >= sizeof(bytes), "#NPF: %ld bytes of the instruction", (u64)c->insn_len);
	for (i = 0; i < sizeof(bytes); i++)
		expect(c->insn_bytes[i] == bytes[i], "#NPF: byte %ld is %lx", (u64)i,
		       (u64)c->insn_bytes[i]);
}

/* The guest's IDT is not in the nested tables: the delivery of the virtual interrupt ends with #NPF. */
static void interrupt_cut_short(struct vm *vm)
{
	struct vmcb *c = vm->vmcb;

	*pte(vm, 0) = vm->pa | PT_P | PT_RW;
	c->idtr = (struct vmcb_seg){ .limit = 0xfff, .base = gva(vm, 0) };
	c->int_ctl = V_INTR_MASKING | V_IRQ | V_INTR_PRIO(15);
	c->int_vector = VECTOR;
	vm->rflags = RFLAGS_IF;
	ends(vm, g_nop, 0, 0, EXIT_NPF);
}

static void exitintinfo_interrupt(struct vm *vm)
{
	interrupt_cut_short(vm);
	expect((u32)vm->vmcb->exit_int_info == (EVENT_VALID | EVENT_INTR | VECTOR),
	       "EXITINTINFO %lx, expected a valid interrupt", vm->vmcb->exit_int_info);
}

static void virq_not_pending_after_exit(struct vm *vm)
{
	interrupt_cut_short(vm);
	expect(vm->vmcb->exit_int_info & EVENT_VALID, "EXITINTINFO %lx, expected a valid event",
	       vm->vmcb->exit_int_info);
	expect(!(vm->vmcb->int_ctl & V_IRQ), "V_IRQ is still pending");
}

/* QEMU interrupts the loop of the guest now and then, if it runs two processors in one thread. */
static void injected_interrupt_once(struct vm *vm)
{
	u64 end = rdtsc() + 3 * GIGA, n = 0;

	with_handlers(vm);
	guest_idt[VECTOR] = gate(g_count);
	while (rdtsc() < end && !failed_so_far()) {
		n++;
		vm->vmcb->event_inj = EVENT_VALID | EVENT_INTR | VECTOR;
		ends(vm, g_spin, GIGA / 300, 0, EXIT_VMMCALL);
		expect(vm->vmcb->rax == 1, "the guest took interrupt %ld %ld times", n, vm->vmcb->rax);
	}
}

/* LMSW is intercepted even if it changes nothing; the other intercept of CR0 writes comes first. */
static void lmsw_selective_cr0(struct vm *vm)
{
	struct vmcb *c = vm->vmcb;

	c->intercept1 |= INTERCEPT_CR0_SELECTIVE;
	ends(vm, g_lmsw, CR0_PE, 0, EXIT_CR0_SELECTIVE);
	ends(vm, g_lmsw, CR0_PE | CR0_MP, 0, EXIT_CR0_SELECTIVE);
	expect(c->rip == (u64)g_lmsw, "RIP %lx, expected that of LMSW, %lx", c->rip, (u64)g_lmsw);
	expect(c->cr0 == CR0_64, "CR0 %lx, expected %lx", c->cr0, CR0_64);
	/* MOV that changes MP only */
	ends(vm, g_write_cr0, CR0_64 | CR0_MP, 0, EXIT_VMMCALL);
	c->intercept_cr_write = 1 << 0;
	ends(vm, g_lmsw, CR0_PE, 0, EXIT_CR_WRITE(0));
}

static void mov_cr3_reserved(struct vm *vm)
{
	ends(vm, g_movcr3, vm->vmcb->cr3 | 1ul << 62, 0, EXIT_EXCP(GP));
	expect(vm->vmcb->rip == (u64)g_movcr3, "RIP %lx, expected that of MOV, %lx", vm->vmcb->rip, (u64)g_movcr3);
}

static void mov_cr4_reserved(struct vm *vm)
{
	ends(vm, g_write_cr4, CR4_64 | 1ul << 31, 0, EXIT_EXCP(GP));
	expect(vm->vmcb->cr4 == CR4_64, "CR4 %lx, expected %lx", vm->vmcb->cr4, CR4_64);
}

/* Outside of long mode, entries of the highest level have no accessed bit. */
static void pae_pdpte_not_accessed(struct vm *vm)
{
	u64 *pdpt = alloc(PAGE_SIZE), *pd = alloc(PAGE_SIZE);

	to_32bit(vm, CR0_64, CR4_64);
	vm->vmcb->cr3 = (u64)pdpt;
	pdpt[0] = (u64)pd | PT_P;
	/* the guest's code */
	pd[1] = SIZE_2M | PT_P | PT_RW | PT_PS;
	ends(vm, g32_nop, 0, 0, EXIT_VMMCALL);
	expect(pd[1] & PT_A, "the lower entry is %lx, expected PT_A to be set", pd[1]);
	expect(pdpt[0] == ((u64)pd | PT_P), "the upper entry is %lx, expected %lx", pdpt[0], (u64)pd | PT_P);
}

void fixes_tests(void)
{
	static const struct test tests[] = {
		{ "double-fault-intercept", double_fault_intercept, NPT_OFF },
		{ "injected-exception-counts", injected_exception_counts, NPT_OFF },
		{ "sysenter-compat-mode", sysenter_compat_mode, NPT_OFF },
		{ "sysenter-msrs-32-bit", sysenter_msrs_32_bit, 0 },
		{ "wrmsr-non-canonical", wrmsr_non_canonical, NPT_OFF },
		{ "int3-intercept", int3_intercept, NPT_OFF },
		{ "int3-is-not-intn", int3_is_not_intn, NPT_OFF },
		{ "into-intercept", into_intercept, NPT_OFF },
		{ "next-rip", next_rip, NPT_OFF },
		{ "injected-bp-dpl", injected_bp_dpl, NPT_OFF },
		{ "read-cr3-intercept", read_cr3_intercept, NPT_OFF },
		{ "read-cr0-intercept", read_cr0_intercept, NPT_OFF },
		{ "dr7-gd-first", dr7_gd_first, NPT_OFF },
		{ "cr4-de-first", cr4_de_first, NPT_OFF },
		{ "decode-assists", decode_assists, NESTED_TABLE },
		{ "exitintinfo-interrupt", exitintinfo_interrupt, NESTED_TABLE },
		{ "virq-not-pending-after-exit", virq_not_pending_after_exit, NESTED_TABLE },
		{ "injected-interrupt-once", injected_interrupt_once, NPT_OFF },
		{ "lmsw-selective-cr0", lmsw_selective_cr0, NPT_OFF },
		{ "mov-cr3-reserved", mov_cr3_reserved, NPT_OFF },
		{ "mov-cr4-reserved", mov_cr4_reserved, NPT_OFF },
		{ "pae-pdpte-not-accessed", pae_pdpte_not_accessed, NPT_OFF },
		{ "ignne-per-processor", ignne_per_processor, 0 },
		/* Without the fix, QEMU aborts, so this is the last one. */
		{ "cr8-raises-virq", cr8_raises_virq, NPT_OFF },
	};
	/* For one thread per processor */
	static const struct test races[] = {
		{ "vmrun-keeps-interrupts", vmrun_keeps_interrupts, NPT_OFF },
		{ "patched-code", patched_code, NPT_OFF },
	};

	run_tests("races", races, ARRAY_SIZE(races));
	run_tests("fixes", tests, ARRAY_SIZE(tests));
}
