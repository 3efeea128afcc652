// SPDX-License-Identifier: GPL-2.0-only
/* Processors: exceptions of the host, and the second CPU. */
#include "rules.h"

#define AP_START	0x8000ul	/* also in start.S */
#define APIC		0xfee00000ul
#define APIC_EOI	(*(volatile u32 *)(APIC + 0xb0))
#define APIC_SPURIOUS	(*(volatile u32 *)(APIC + 0xf0))
#define APIC_ICR_LOW	(*(volatile u32 *)(APIC + 0x300))
#define APIC_ICR_HIGH	(*(volatile u32 *)(APIC + 0x310))
#define APIC_ID(n)	((u32)(n) << 24)
#define ICR_FIXED	0x4000
#define ICR_INIT	0x4500
#define ICR_SIPI	0x4600

struct descriptor {
	u16 limit;
	u64 base;
} __attribute__((packed));

extern char exception_stubs[], ap_start[], ap_start_end[];
void exception(u64 vector, u64 error, u64 rip, u64 cr2);
void ap_main(void);

#define EXCEPTIONS	32

static struct gate idt[EXCEPTIONS + 64];
static void (*volatile mailbox)(void);
static volatile bool second_cpu_up;

void exception(u64 vector, u64 error, u64 rip, u64 cr2)
{
	printf("Bail out! exception %ld in the host, error code %lx, at %lx, CR2 %lx\n", vector,
	       error, rip, cr2);
	finish(2);
}

/* Called on each processor; SVM was enabled together with long mode. */
void cpu_init(void)
{
	struct descriptor d = { sizeof(idt) - 1, (u64)idt };
	u64 i;

	for (i = 0; i < EXCEPTIONS; i++)
		idt[i] = gate(exception_stubs + 16 * i);
	asm volatile("lidt %0" : : "m"(d));
	wrmsr(MSR_VM_HSAVE_PA, (u64)alloc(PAGE_SIZE));
	asm volatile("stgi");
}

/* Have this processor's APIC deliver a vector, which is masked until IF is set. */
void cpu_enable_interrupt(u32 vector, void *handler)
{
	idt[vector] = gate(handler);
	APIC_SPURIOUS |= 0x100;
}

void cpu_end_of_interrupt(void)
{
	APIC_EOI = 0;
}

volatile u64 interrupts_taken;

__attribute__((interrupt)) static void count(void *frame)
{
	(void)frame;
	interrupts_taken++;
	cpu_end_of_interrupt();
}

/* Count the interrupts of this vector that the processor takes, from 0. */
void cpu_count_interrupts(u32 vector)
{
	cpu_enable_interrupt(vector, count);
	interrupts_taken = 0;
}

/* Interrupts are off otherwise, so they are taken here. */
void cpu_take_interrupts(void)
{
	asm volatile("sti; nop; nop; cli" : : : "memory");
}

/* Have HANDLER called for an exception of any processor; NULL: it is unexpected again. */
void cpu_handle_exception(u32 vector, void *handler)
{
	idt[vector] = gate(handler ? handler : exception_stubs + 16 * vector);
}

void cpu_mask_interrupts(void)
{
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
}

void ap_main(void)
{
	void (*fn)(void);

	cpu_init();
	second_cpu_up = true;
	for (;;) {
		fn = mailbox;
		if (fn) {
			fn();
			mailbox = NULL;
		}
		asm volatile("pause");
	}
}

static void ipi(u32 to, u32 command)
{
	APIC_ICR_HIGH = APIC_ID(to);
	APIC_ICR_LOW = command;
	while (APIC_ICR_LOW & (1u << 12))
		asm volatile("pause");
}

/* INIT, then start, in any state of the CPU. */
void restart_second_cpu(void)
{
	u64 i;

	second_cpu_up = false;
	mailbox = NULL;
	memcpy((void *)AP_START, ap_start, ap_start_end - ap_start);
	ipi(1, ICR_INIT);
	/* A pending INIT would swallow the start, and there is no way to ask for its state, so wait. */
	for (i = 0; i < 100000; i++)
		inb(0x80);
	ipi(1, ICR_SIPI | AP_START >> 12);
	while (!second_cpu_up)
		asm volatile("pause");
}

/* Sent by the second CPU; it stays pending while interrupts are off. */
void interrupt_first_cpu(void)
{
	ipi(0, ICR_FIXED | IPI_VECTOR);
}

void start_on_second_cpu(void (*fn)(void))
{
	if (!second_cpu_up)
		restart_second_cpu();
	mailbox = fn;
}

void wait_for_second_cpu(void)
{
	while (mailbox)
		asm volatile("pause");
}

void on_second_cpu(void (*fn)(void))
{
	start_on_second_cpu(fn);
	wait_for_second_cpu();
}
