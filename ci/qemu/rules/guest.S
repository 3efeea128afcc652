/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The code of the guests: a few instructions each, with arguments in RDI and RSI, the result in RAX,
 * and a VMMCALL at the end.  All code lies in one 2 MB page of each guest, at its address on the host.
 */
	.macro guest name
	.balign 32
	.globl \name
\name:
	.endm

	.text
	.code64

guest g_nop
	vmmcall

guest g_load
	mov	(%rdi), %rax
	vmmcall

guest g_store
	mov	%rsi, (%rdi)
	vmmcall

/* Two accesses without a VMRUN in between: QEMU's own TLB takes part only here. */
guest g_load_invlpg_load
	mov	(%rdi), %rax
	invlpg	(%rsi)
	mov	(%rdi), %rax
	vmmcall

/* The page holds a RET. */
guest g_call
	call	*%rdi
	vmmcall

guest g_invlpg
	invlpg	(%rdi)
	vmmcall

/* RAX: address, ECX: ASID */
guest g_invlpga
	mov	%rdi, %rax
	mov	%esi, %ecx
	invlpga	%rax, %ecx
	vmmcall

/* RDI: type, RSI: descriptor */
guest g_invpcid
	invpcid	(%rsi), %rdi
	vmmcall

/* RDI: RAX, RSI: EDX and ECX */
	.macro invlpgb_with_arguments
	mov	%rdi, %rax
	mov	%esi, %ecx
	mov	%rsi, %rdx
	shr	$32, %rdx
	invlpgb
	.endm

guest g_invlpgb
	invlpgb_with_arguments
	vmmcall

guest g_tlbsync
	tlbsync
	vmmcall

guest g_invlpgb_tlbsync
	invlpgb_with_arguments
	tlbsync
	vmmcall

/* Read (RDI) until it changes, but not for ever; (RSI): how often it was read.  RAX: the last value */
guest g_wait
	mov	(%rdi), %rbx
	mov	$1 << 20, %ecx
1:	incq	(%rsi)
	mov	(%rdi), %rax
	cmp	%rbx, %rax
	jne	2f
	pause			/* One thread may run both processors. */
	loop	1b
2:	vmmcall

guest g_movcr3
	mov	%rdi, %cr3
	vmmcall

guest g_reload_cr3
	mov	%cr3, %rax
	mov	%rax, %cr3
	vmmcall

guest g_read_cr0
	mov	%cr0, %rax
	vmmcall

guest g_read_cr2
	mov	%cr2, %rax
	vmmcall

guest g_read_cr3
	mov	%cr3, %rax
	vmmcall

guest g_read_cr4
	mov	%cr4, %rax
	vmmcall

guest g_read_cr8
	mov	%cr8, %rax
	vmmcall

guest g_read_dr7
	mov	%dr7, %rax
	vmmcall

guest g_read_dr6
	mov	%dr6, %rax
	vmmcall

guest g_read_ds
	xor	%eax, %eax
	mov	%ds, %eax
	vmmcall

guest g_write_cr2
	mov	%rdi, %cr2
	vmmcall

guest g_write_cr0
	mov	%rdi, %cr0
	vmmcall

guest g_lmsw
	lmsw	%di
	vmmcall

/* #DB comes after the NOP. */
guest g_trap_flag
	pushf
	orq	$0x100, (%rsp)
	popf
	nop
	.globl g_trap_flag_end
g_trap_flag_end:
	vmmcall

guest g_write_cr4
	mov	%rdi, %cr4
	vmmcall

/* There and back */
guest g_flip_cr0
	mov	%cr0, %rax
	xor	%rax, %rdi
	mov	%rdi, %cr0
	mov	%rax, %cr0
	vmmcall

guest g_flip_cr4
	mov	%cr4, %rax
	xor	%rax, %rdi
	mov	%rdi, %cr4
	mov	%rax, %cr4
	vmmcall

guest g_rdmsr
	mov	%edi, %ecx
	rdmsr
	shl	$32, %rdx
	or	%rdx, %rax
	vmmcall

guest g_wrmsr
	mov	%edi, %ecx
	mov	%rsi, %rax
	mov	%rsi, %rdx
	shr	$32, %rdx
	wrmsr
	vmmcall

guest g_rdtsc
	rdtsc
	shl	$32, %rdx
	or	%rdx, %rax
	vmmcall

guest g_in
	mov	%edi, %edx
	in	%dx, %al
	vmmcall

guest g_cpuid
	xor	%eax, %eax
	cpuid
	vmmcall

guest g_hlt
	hlt
	vmmcall

guest g_wrpkru
	mov	%edi, %eax
	xor	%ecx, %ecx
	xor	%edx, %edx
	wrpkru
	vmmcall

guest g_rsp
	mov	%rsp, %rax
	vmmcall

guest g_rax
	vmmcall

guest g_flags
	pushf
	pop	%rax
	vmmcall

guest g_sgdt
	sub	$16, %rsp
	sgdt	(%rsp)
	mov	2(%rsp), %rax
	add	$16, %rsp
	vmmcall

guest g_sidt
	sub	$16, %rsp
	sidt	(%rsp)
	mov	2(%rsp), %rax
	add	$16, %rsp
	vmmcall

guest g_ud2
	ud2
	vmmcall

guest g_int3
	int3
	vmmcall

guest g_int_40
	int	$0x40
	vmmcall

guest g_read_dr4
	mov	%db4, %rax
	vmmcall

guest g_write_cr8
	mov	%rdi, %cr8
	nop
	vmmcall

guest g_vmload
	mov	%rdi, %rax
	vmload	%rax
	vmmcall

guest g_vmsave
	mov	%rdi, %rax
	vmsave	%rax
	vmmcall

guest g_rdtscp
	rdtscp
	shl	$32, %rdx
	or	%rdx, %rax
	vmmcall

/* RDI times; RAX: how many were done */
guest g_pause
	xor	%eax, %eax
1:	pause
	inc	%rax
	cmp	%rdi, %rax
	jb	1b
	vmmcall

/* One branch each, between two labels */
	.macro from name
	.globl \name\()_from
\name\()_from:
	.endm
	.macro to name
	.globl \name\()_to
\name\()_to:
	.endm

guest g_lbr_jmp
from g_lbr_jmp
	jmp	g_lbr_jmp_to
	nop
to g_lbr_jmp
	vmmcall

guest g_lbr_jmp_reg
	lea	g_lbr_jmp_reg_to(%rip), %rax
from g_lbr_jmp_reg
	jmp	*%rax
	nop
to g_lbr_jmp_reg
	vmmcall

guest g_lbr_jmp_mem
	lea	g_lbr_jmp_mem_to(%rip), %rax
	push	%rax
from g_lbr_jmp_mem
	jmp	*(%rsp)
	nop
to g_lbr_jmp_mem
	vmmcall

guest g_lbr_jnz
	or	$1, %eax
from g_lbr_jnz
	jnz	g_lbr_jnz_to
	nop
to g_lbr_jnz
	vmmcall

guest g_lbr_jrcxz
	xor	%ecx, %ecx
from g_lbr_jrcxz
	jrcxz	g_lbr_jrcxz_to
	nop
to g_lbr_jrcxz
	vmmcall

guest g_lbr_loop
	mov	$2, %ecx
from g_lbr_loop
	loop	g_lbr_loop_to
	nop
to g_lbr_loop
	vmmcall

guest g_lbr_call
from g_lbr_call
	call	g_lbr_call_to
	nop
to g_lbr_call
	vmmcall

guest g_lbr_call_reg
	lea	g_lbr_call_reg_to(%rip), %rax
from g_lbr_call_reg
	call	*%rax
	nop
to g_lbr_call_reg
	vmmcall

guest g_lbr_ret
	lea	g_lbr_ret_to(%rip), %rax
	push	%rax
from g_lbr_ret
	ret
	nop
to g_lbr_ret
	vmmcall

guest g_lbr_iret
	mov	%rsp, %rcx
	lea	g_lbr_iret_to(%rip), %rax
	push	$0x10
	push	%rcx
	pushf
	push	$8
	push	%rax
from g_lbr_iret
	iretq
	nop
to g_lbr_iret
	vmmcall

guest g_lbr_lret
	lea	g_lbr_lret_to(%rip), %rax
	push	$8
	push	%rax
from g_lbr_lret
	lretq
	nop
to g_lbr_lret
	vmmcall

/* Neither is a branch that is taken. */
guest g_lbr_not_taken
	or	$1, %eax
	jz	1f
	lea	-64(%rsp), %rdi
	mov	$2, %ecx
	rep stosb
1:	vmmcall

guest g_lbr_ud2
	jmp	g_lbr_ud2_from
	nop
from g_lbr_ud2
	ud2
	vmmcall

/* Record in the MSRs, and stop. */
guest g_lbr_record
	mov	$0x1d9, %ecx
	mov	$1, %eax
	xor	%edx, %edx
	wrmsr
from g_lbr_record
	jmp	g_lbr_record_to
	nop
to g_lbr_record
	xor	%eax, %eax
	wrmsr
	vmmcall

/* Run for RDI cycles; RSI counts the interrupts. */
guest g_spin
	rdtsc
	shl	$32, %rdx
	or	%rdx, %rax
	add	%rax, %rdi
1:	rdtsc
	shl	$32, %rdx
	or	%rdx, %rax
	cmp	%rdi, %rax
	jb	1b
	mov	%rsi, %rax
	vmmcall

/* Handlers: count, and report the return address */
guest g_count
	inc	%rsi
	iretq

guest g_return
	pop	%rax
	vmmcall

	.balign 16
	.globl g_handlers
g_handlers:
	.set vector, 0
	.rept 0x50
	.balign 16
	mov	$vector, %eax
	vmmcall
	.set vector, vector + 1
	.endr

/* For guests in 32-bit or compatibility mode */
	.code32

guest g32_vmload
	mov	%edi, %eax
	vmload	%eax
	vmmcall

guest g32_vmsave
	mov	%edi, %eax
	vmsave	%eax
	vmmcall

guest g32_into
	into
	vmmcall

guest g32_sysenter
	sysenter
	vmmcall

guest g32_nop
	vmmcall

guest g32_load
	mov	(%edi), %eax
	vmmcall

guest g32_invlpg
	invlpg	(%edi)
	vmmcall

guest g32_reload_cr3
	mov	%cr3, %eax
	mov	%eax, %cr3
	vmmcall

guest g32_write_cr0
	mov	%edi, %cr0
	vmmcall

guest g32_write_cr4
	mov	%edi, %cr4
	vmmcall

guest g32_flip_cr4
	mov	%cr4, %eax
	xor	%eax, %edi
	mov	%edi, %cr4
	mov	%eax, %cr4
	vmmcall

	.section .note.GNU-stack, "", @progbits
