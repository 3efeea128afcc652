# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Sourced by common.sh: which commit is the base, what a kernel tree is, and git am that leaves nothing half-made.

# The versions that ci/inputs pins; that of the base is written as in the name of its tag in the cache.
base_version() {
	local v
	v=$(sed -n 's/^version=//p' "$TOP/ci/inputs/base")
	echo "${v//\~/_}"
}

# version_of qemu|bochs: print the version of an emulator.
version_of() {
	sed -n 's/^version=//p' "$TOP/ci/inputs/$1"
}

qemu_version() {
	version_of qemu
}

# Print the object directories that may contain the base.
alternates() {
	local dir
	# shellcheck disable=SC2153 # of common.sh
	echo "$REPO/objects"
	for dir in ${KDIR:+"$KDIR"} ${KVM_TLB_TREE:+"$KVM_TLB_TREE"}; do
		git -C "$dir" rev-parse --path-format=absolute --git-path objects
	done
}

# check_tree DIR: refuse DIR if it is not a kernel git tree that the rig can test without the series.
check_tree() {
	[ -d "$1" ] || die "$1 is not a directory: --tree takes a kernel git tree"
	git -C "$1" rev-parse -q --verify HEAD >/dev/null 2>&1 || die "$1 is not a git tree with a commit: --tree takes a kernel git tree"
	git -C "$1" rev-parse -q --verify HEAD:arch/x86/kvm/Kconfig >/dev/null 2>&1 || die "$1 is not a kernel tree (no arch/x86/kvm): --tree takes a kernel git tree"
	git -C "$1" rev-parse -q --verify HEAD:tools/testing/selftests/kvm/Makefile.kvm >/dev/null 2>&1 ||
		die "$1 is too old: --tree needs Linux 6.14 or newer (with tools/testing/selftests/kvm/Makefile.kvm)"
	git --no-optional-locks -C "$1" diff --quiet HEAD -- 2>/dev/null || note "$1 has uncommitted changes, which are not built"
}

# check_kdir DIR: refuse DIR if it is not a clean kernel git tree that is new enough for the series.
check_kdir() {
	local v
	[ -d "$1" ] || die "$1 is not a directory: KDIR must be a kernel git tree"
	git -C "$1" rev-parse -q --verify HEAD >/dev/null 2>&1 || die "$1 is not a git tree with a commit: KDIR must be a kernel git tree"
	[ -e "$1/arch/x86/kvm/svm/nested.c" ] || die "$1 is not a kernel tree (no arch/x86/kvm/svm/nested.c): KDIR must be a kernel git tree"
	[ -e "$1/Makefile" ] || die "$1 is not a kernel tree (no Makefile): KDIR must be a kernel git tree"
	v=$(awk '/^(VERSION|PATCHLEVEL) =/ { printf "%03d", $3 } END { print "" }' "$1/Makefile")
	[ "$v" -ge 007003 ] 2>/dev/null || die "$1 is Linux $(sed -n '2s/.*= //p;3s/.*= /./p' "$1/Makefile" | tr -d '\n'), which is too old: the series needs 7.3 or newer"
	not_under_way "$1"
	# Do not let git diff update the index.
	git --no-optional-locks -C "$1" diff --quiet HEAD -- 2>/dev/null || die "$1 has uncommitted changes: commit or stash them first"
}

# not_under_way DIR: refuse DIR while git am or git rebase is in progress there, because its HEAD is not a base, and its commits are not on a
# branch yet.
not_under_way() {
	local d
	for d in rebase-apply rebase-merge; do
		[ ! -d "$(git -C "$1" rev-parse --path-format=absolute --git-path $d)" ] || die "$1 is in the middle of git am or rebase: finish or abort it first"
	done
}

# The repository's configuration records the base of the branch that scripts/tree makes.
BRANCH=kvm-tlb-tags
recorded_base() {
	git -C "$1" config "branch.$BRANCH.kvmTlbBase" || true
}

base_commit() {
	local b
	if [ -n "${KDIR-}" ]; then
		check_kdir "$KDIR"
		if [ "$(git -C "$KDIR" symbolic-ref -q --short HEAD || true)" = "$BRANCH" ]; then
			b=$(recorded_base "$KDIR")
			[ -n "$b" ] || die "$KDIR is on a branch $BRANCH, which scripts/tree did not make: check out the base there"
			echo "$b"
		else
			git -C "$KDIR" rev-parse HEAD
		fi
		return
	fi
	[ -d "$REPO" ] || die "there is no base in the cache: run scripts/setup"
	git -C "$REPO" rev-parse -q --verify "refs/tags/base/$(base_version)^{commit}" ||
		die "the base in the cache is damaged: rm -r $REPO and run scripts/setup"
}

base_name() {
	if [ -n "${KDIR-}" ]; then
		git -C "$KDIR" describe --always "$(base_commit)"
	else
		base_version
	fi
}

# Set a neutral committer for the commits of the rig, so that their ids depend on content only.
am_identity() {
	export GIT_COMMITTER_NAME="KVM TLB tags series" GIT_COMMITTER_EMAIL=kvm-tlb-tags@localhost
}

# uninterruptible CMD...: run CMD in its own session so that Ctrl-C cannot leave git's locks and half-written files behind.  The caller's
# trap runs after CMD.  Ignoring the signal instead does not help: git then continues without its locks.
uninterruptible() {
	setsid -w "$@"
}

# am DIR PATCHES: apply PATCHES to the work tree DIR.  If one fails, or on Ctrl-C, restore DIR; name the patch that failed, and why.
am() {
	local dir=$1 before p log why
	[ -n "$2" ] || return 0
	log=$BUILD/am.log
	before=$(git -C "$dir" rev-parse HEAD)
	# A second Ctrl-C must not stop the cleanup.
	trap 'trap "" INT TERM HUP; am_undo "$dir" "$before"; note "$KVM_TLB_VERB: interrupted; $dir is unchanged"; exit 130' INT TERM HUP
	while read -r p; do
		# Disable gc: a repack in the background would outlive this script and hold the lock.
		if ! uninterruptible git -C "$dir" -c core.hooksPath=/dev/null -c gc.auto=0 am -q --committer-date-is-author-date --no-gpg-sign "$TOP/$p" >"$log" 2>&1; then
			uninterruptible git -C "$dir" am --abort >/dev/null 2>&1 || true
			why=$(am_file "$TOP/$p" "$dir")
			am_undo "$dir" "$before"
			sed 's/^/    /' "$log" | grep -v -e hint: -e 'git am' | head -n 8 >&2 || true
			die "$p does not apply to $(base_name) ($why): rebase it with scripts/tree, or choose another base"
		fi
	done <<<"$2"
	trap - INT TERM HUP
}

am_undo() {
	uninterruptible git -C "$1" am --abort >/dev/null 2>&1 || true
	rm -rf "$(git -C "$1" rev-parse --path-format=absolute --git-path rebase-apply)"
	uninterruptible git -C "$1" reset -q --hard "$2"
}

# am_file PATCH DIR: print why PATCH does not apply: the first file with a hunk that fails, or that DIR has such a commit already.
am_file() {
	local subject
	subject=$(subject_of "$1" || true)
	if [ -n "$subject" ] && git -C "$2" log -n 300 --format=%s | grep -xF -e "$subject" >/dev/null; then
		echo "a commit with this subject is there already"
	else
		git -C "$2" apply --check "$1" 2>&1 | sed -n 's/^error: patch failed: \(.*\):[0-9]*$/first in \1/p; s/^error: \(.*\): .*$/first in \1/p; s/^error: \(corrupt.*\|No valid.*\)/\1/p' | sed 1q || true
	fi
}

# same_patches DIR: succeed if DIR, which ci/series/format wrote, has the same patches and series as the project.
same_patches() {
	cmp -s "$1/series" <(in_parts 2>/dev/null) && diff -r -q "$1/patches" "$TOP/patches" >/dev/null && diff -r -q "$1/selftests" "$TOP/selftests" >/dev/null
}

# Print the repository that scripts/tree made, for the commands that work on its branch.
tree_repo() {
	local repo=${KDIR:-$BUILD/linux}
	[ -n "$(git -C "$repo" config "branch.$BRANCH.kvmTlbBase" 2>/dev/null || true)" ] ||
		die "no branch $BRANCH in $repo: run scripts/tree first"
	git -C "$repo" rev-parse -q --verify "refs/heads/$BRANCH" >/dev/null || die "no branch $BRANCH in $repo: run scripts/tree first"
	[ "$(git -C "$repo" symbolic-ref -q --short HEAD)" = "$BRANCH" ] || die "$repo is not on branch $BRANCH: finish a rebase, if one is in progress, or check out the branch"
	git -C "$repo" diff --quiet HEAD -- || die "$repo has uncommitted changes: commit or stash them first"
	echo "$repo"
}

# about: print what is tested, for pages of results.
about() {
	echo "$(date -u '+%F %R') UTC"
	echo "base: Linux $(base_name); QEMU: $(version_of qemu) with ci/qemu; Bochs: $(version_of bochs) with ci/bochs; this project: $(git -C "$TOP" describe --always --dirty 2>/dev/null || echo 'not a git clone')"
}
