/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Enter long mode, from multiboot's 32-bit entry or, on the second CPU, from real mode; and the host's
 * exceptions.
 */
#define MULTIBOOT_MAGIC	0x1badb002
#define CODE64		0x08
#define DATA		0x10
#define CODE32		0x18
#define AP_START	0x8000		/* also in cpu.c */

	.section .multiboot, "a"
	.align 4
	.long MULTIBOOT_MAGIC, 0, -MULTIBOOT_MAGIC

	.bss
	.align 4096
host_pml4:
	.skip 4096
host_pdpt:
	.skip 4096
host_pd:
	.skip 4 * 4096
	.skip 16384
stack_top:
	.skip 16384
ap_stack_top:

	.data
	.align 8
	.globl gdt, gdt_end
gdt:
	.quad 0
	.quad 0x00af9b000000ffff	/* CODE64 */
	.quad 0x00cf93000000ffff	/* DATA */
	.quad 0x00cf9b000000ffff	/* CODE32 */
gdt_end:
gdt_ptr:
	.word gdt_end - gdt - 1
	.quad gdt

	.code32
	.text
	.globl start
start:
	mov	%ebx, %esi		/* multiboot information */
	cli
	cld

	/* The first 4 GB, mapped one to one in pages of 2 MB */
	movl	$host_pdpt + 7, host_pml4
	mov	$host_pdpt, %edi
	mov	$host_pd + 7, %eax
1:	mov	%eax, (%edi)
	add	$4096, %eax
	add	$8, %edi
	cmp	$host_pdpt + 32, %edi
	jb	1b
	mov	$host_pd, %edi
	mov	$0x87, %eax
1:	mov	%eax, (%edi)
	add	$0x200000, %eax
	add	$8, %edi
	cmp	$host_pd + 4 * 4096, %edi
	jb	1b

	mov	$stack_top, %esp
	mov	$main, %ebx
	lgdt	gdt_ptr
to_long_mode:
	mov	$0x20, %eax		/* PAE */
	mov	%eax, %cr4
	mov	$host_pml4, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx
	mov	$0x1900, %eax		/* EFER: SVME, NXE, LME */
	xor	%edx, %edx
	wrmsr
	mov	$0x80010011, %eax	/* PG, WP, ET, PE */
	mov	%eax, %cr0
	ljmp	$CODE64, $1f
	.code64
1:	mov	$DATA, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	mov	%esi, %edi
	call	*%rbx
1:	hlt
	jmp	1b

/* This is copied to AP_START and runs in real mode; CS is AP_START >> 4. */
	.code16
	.globl ap_start, ap_start_end
ap_start:
	cli
	xor	%ax, %ax
	mov	%ax, %ds
	lgdtl	AP_START + ap_gdt_ptr - ap_start
	mov	$0x11, %eax
	mov	%eax, %cr0
	ljmpl	$CODE32, $ap_start32
ap_gdt_ptr:
	.word	gdt_end - gdt - 1
	.long	gdt
ap_start_end:
	.code32
ap_start32:
	mov	$DATA, %eax
	mov	%eax, %ds
	mov	$ap_stack_top, %esp
	mov	$ap_main, %ebx
	jmp	to_long_mode

/* The host expects no exceptions; print which one it was and stop. */
	.code64
	.balign 16
	.globl exception_stubs
exception_stubs:
	.set vector, 0
	.rept 32
	.balign 16
	.if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21
	.else
	push	$0
	.endif
	push	$vector
	jmp	exception_common
	.set vector, vector + 1
	.endr
/* INVLPGB and TLBSYNC have three bytes each.  Skip the instruction, and say which exception it raised. */
	.globl skip_ud, skip_gp
skip_gp:
	movq	$13, skipped_vector
	add	$8, %rsp
	jmp	1f
skip_ud:
	movq	$6, skipped_vector
1:	addq	$3, (%rsp)
	iretq

exception_common:
	pop	%rdi			/* vector */
	pop	%rsi			/* error code */
	pop	%rdx			/* RIP */
	mov	%cr2, %rcx
	and	$-16, %rsp
	call	exception

	.section .note.GNU-stack, "", @progbits
