/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The ROM that takes the place of a video BIOS in Bochs.  Bochs' BIOS calls it
 * after it has made its ACPI tables.  It starts the Linux kernel that
 * ci/lib/bochs.py has put into memory: the real-mode part at REAL, and the rest
 * at 1 MB, as Documentation/arch/x86/boot.rst wants it.
 */
#define REAL		0x9000		/* a segment */
#define STACK		0xe000
/* Memory keeps its contents when the machine is reset, for example by a panic. */
#define STARTED		0xeffe

	.code16
	.globl	_start
_start:
	.byte	0x55, 0xaa
	.byte	1			/* the size of the ROM in units of 512 bytes */
	/* The BIOS calls this offset. */
	cli
	cld
	movw	$REAL, %ax
	movw	%ax, %ds
	movw	%ax, %es
	cmpb	$0, STARTED
	jne	end
	movb	$1, STARTED
	movw	%ax, %fs
	movw	%ax, %gs
	movw	%ax, %ss
	movw	$STACK, %sp
	ljmp	$REAL + 0x20, $0

	/* The kernel must not start again: end Bochs. */
end:
	movw	$0x8900, %dx
	movw	$word, %si
	movw	$8, %cx
	rep outsb %cs:(%si), %dx
	hlt
word:
	.ascii	"Shutdown"
