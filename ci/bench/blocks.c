// SPDX-License-Identifier: GPL-2.0-only
/*
 * QEMU plugin of scripts/profile: counts how often each translated block runs.
 *
 * Argument: out=FILE.  At exit, FILE gets a line "ADDRESS INSTRUCTIONS RUNS" for
 * each block, with its virtual address in hexadecimal, and a last line "end".  A
 * block that has been translated again, e.g. with another length, has a line for
 * each translation.  A block counts in full even if it faults halfway.
 */
#include <glib.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <qemu-plugin.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

struct block {
	uint64_t address;
	uint64_t instructions;
	uint64_t runs;
	struct block *next;
};

static struct block *blocks;
static GMutex lock;
static char *path;

/* With icount, all processors share one thread. */
static void run(unsigned int vcpu, void *block)
{
	((struct block *)block)->runs++;
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	struct block *b = g_new0(struct block, 1);

	b->address = qemu_plugin_tb_vaddr(tb);
	b->instructions = qemu_plugin_tb_n_insns(tb);
	g_mutex_lock(&lock);
	b->next = blocks;
	blocks = b;
	g_mutex_unlock(&lock);
	qemu_plugin_register_vcpu_tb_exec_cb(tb, run, QEMU_PLUGIN_CB_NO_REGS, b);
}

static void at_exit(qemu_plugin_id_t id, void *unused)
{
	FILE *f = fopen(path, "w");

	if (!f) {
		perror(path);
		return;
	}
	for (struct block *b = blocks; b; b = b->next) {
		if (b->runs)
			fprintf(f, "%" PRIx64 " %" PRIu64 " %" PRIu64 "\n", b->address,
				b->instructions, b->runs);
	}
	fprintf(f, "end\n");
	if (fclose(f))
		perror(path);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info,
					   int argc, char **argv)
{
	if (argc != 1 || strncmp(argv[0], "out=", 4)) {
		fprintf(stderr, "the plugin takes one argument, out=FILE\n");
		return 1;
	}
	path = g_strdup(argv[0] + 4);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
	qemu_plugin_register_atexit_cb(id, at_exit, NULL);
	return 0;
}
