# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Sourced by every command: paths, messages, the lock and the step runner.
set -euo pipefail
export LC_ALL=C

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BUILD=$TOP/build
CACHE=${KVM_TLB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kvm-tlb-tags}
REPO=$CACHE/linux.git		# bare: every base ever imported, a tag each
APT=$CACHE/apt			# private apt: its own lists and archives
TOOLS=$CACHE/tools		# packages that are unpacked, not installed
export TOP BUILD CACHE REPO APT TOOLS

# Let ccache find objects by content, so that clones share them.
export CCACHE_DIR=$CACHE/ccache CCACHE_MAXSIZE=${CCACHE_MAXSIZE:-6G} CCACHE_COMPILERCHECK=content
export CCACHE_BASEDIR=$TOP CCACHE_NOHASHDIR=1 CCACHE_DEPEND=1
# Use Debian 12's interpreter, not the first one in PATH: QEMU's configure and the packages above need it.
PYTHON=/usr/bin/python3
# Directories in which the programs of ci/ find each other's modules.
PYTHONPATH=$TOP/ci/lib:$TOP/ci/tests:$TOP/ci/bench:$TOP/ci/series
export PYTHON PYTHONPATH

# Messages begin with the name of the command that the user typed, even if a script that it calls prints them.
export KVM_TLB_VERB=${KVM_TLB_VERB:-${0##*/}}
die() {
	printf '%s: %s\n' "$KVM_TLB_VERB" "$*" >&2
	exit 1
}

# The kernel's makefiles and the word lists of these scripts cannot handle such paths.
case $TOP$CACHE in *[[:space:]:]*)
	die "the path of the project ($TOP) or of the cache ($CACHE) has a blank or a colon: clone the project elsewhere, or set KVM_TLB_CACHE" ;;
esac

note() {
	printf '%s\n' "$*" >&2
}

# usage FILE: print the comment block at the top of a command, which is its help.
usage() {
	sed -n '3,/^[^#]/{s/^# \{0,1\}//p}' "$1"
}

help_if_asked() {
	case ${2-} in
	-h | --help)
		usage "$1"
		exit 0
		;;
	esac
}

# Only one run writes in a clone at a time.  A second run prints a note and waits; commands that a command calls share its lock.
lock() {
	[ -z "${KVM_TLB_LOCKED-}" ] || return 0
	mkdir -p "$BUILD" "$CACHE"
	exec 9>"$BUILD/.lock"
	if ! flock -n 9; then
		note "another run is active in this clone (process $(cat "$BUILD/.lock.pid" 2>/dev/null || echo unknown)): waiting for it to end"
		flock 9
	fi
	echo $$ >"$BUILD/.lock.pid"
	export KVM_TLB_LOCKED=$$
}

# step LABEL CMD...: run CMD with its output in a log; print one line with the elapsed time, and the end of the log if CMD fails.
step() {
	"$PYTHON" "$TOP/ci/lib/step.py" ${VERBOSE:+-v} "$BUILD/log" "$@"
}

# need_disk DIR: check for 8 GB of free space, the most that a first run needs.
need_disk() {
	local kb
	mkdir -p "$1"
	kb=$(df -Pk "$1" | awk 'NR == 2 { print $4 }')
	[ "$kb" -ge "${KVM_TLB_MIN_KB:-8388608}" ] ||
		die "$1 has $((kb / 1024)) MB free and $((${KVM_TLB_MIN_KB:-8388608} / 1024)) MB are needed: free some space, or set KVM_TLB_CACHE to another directory"
}

# hash_of FILE...: print a key of the names (relative to the project) and contents of files.
hash_of() {
	(cd "$TOP" && sha256sum -- "$@") | sha256sum | cut -c1-16
}

# in_parts: check the series file, and print for each part its heading, "# part NAME", and its patches in order, kernel patches first.
in_parts() {
	local line f seen=' ' parts=' ' part='' last='' heading='^# part( |$)'
	[ -e "$TOP/series" ] || die "there is no series file: restore it with git checkout series"
	while read -r line || [ -n "$line" ]; do
		if [[ $line =~ $heading ]]; then
			f=${line#"# part"} f=${f# }
			case $f in '' | -* | *[!a-z0-9-]*) die "series: \"$line\" is not a heading: write \"# part NAME\" (a-z, 0-9 and -)" ;; esac
			case $parts in *" $f "*) die "series has the heading \"$line\" twice: merge the two" ;; esac
			[ -z "$part" ] || [ -n "$last" ] || die "part $part in series has no patches: remove its heading"
			parts="$parts$f " part=$f last=''
			echo "$line"
			continue
		fi
		case $line in '' | '#'*) continue ;; esac
		f=$line
		[ -n "$part" ] || die "$f in series is not in a part: write \"# part NAME\" above it"
		[ -s "$TOP/$f" ] || die "series lists $f, which is missing or empty: run git checkout $f or scripts/export"
		case $seen in *" $f "*) die "series lists $f twice: remove one of the lines" ;; esac
		case $last-$f in selftests/*-patches/*) die "$f in series comes after a selftest of its part, $part: move it above $last" ;; esac
		seen="$seen$f " last=$f
		echo "$f"
	done <"$TOP/series"
	[ -z "$part" ] || [ -n "$last" ] || die "part $part in series has no patches: remove its heading"
	for f in "$TOP"/patches/*.patch "$TOP"/selftests/*.patch; do
		[ -e "$f" ] || continue
		f=${f#"$TOP"/}
		case $seen in *" $f "*) ;; *) die "$f is not in series: add it there or remove the file" ;; esac
	done
}

# in_series [PART]: print all patch files in order, relative to the project, or only those of PART and of the parts before it.
in_series() {
	local all
	all=$(in_parts) || return
	[ -n "$all" ] || return 0
	awk -v to="${1-}" '/^#/ { if (to && part == to) exit; part = $3; next } { print }' <<<"$all"
}

# of_part PART: print the patch files of this part only.
of_part() {
	local all
	all=$(in_parts) || return
	awk -v want="$1" '/^#/ { part = $3; next } part == want { print }' <<<"$all"
}

# parts: print the names of the parts, in order.
parts() {
	local all
	all=$(in_parts) || return
	sed -n 's/^# part //p' <<<"$all"
}

# check_part NAME: refuse the name if series has no such part.
check_part() {
	local all
	all=$(parts) || exit
	grep -qxF -e "$1" <<<"$all" || die "there is no part $1 in series (choose from: $(xargs <<<"$all"))"
}

# --- the source tree

# The versions that ci/inputs pins; that of the base is written as in the name of its tag in the cache.
base_version() {
	local v
	v=$(sed -n 's/^version=//p' "$TOP/ci/inputs/base")
	echo "${v//\~/_}"
}

qemu_version() {
	sed -n 's/^version=//p' "$TOP/ci/inputs/qemu"
}

# Print the object directories that may contain the base.
alternates() {
	local dir
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
	subject=$(git mailinfo /dev/null /dev/null <"$1" 2>/dev/null | sed -n 's/^Subject: //p' || true)
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
