# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Sourced by every verb: paths, messages, the lock and the step runner.
set -euo pipefail
export LC_ALL=C

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BUILD=$TOP/build
CACHE=${KVM_TLB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kvm-tlb-tags}
REPO=$CACHE/linux.git		# bare: every base ever imported, a tag each
APT=$CACHE/apt			# isolated apt: own lists, own archives
TOOLS=$CACHE/tools		# packages unpacked, not installed
export TOP BUILD CACHE REPO APT TOOLS

# Objects are found again by content, whichever clone built them first.
export CCACHE_DIR=$CACHE/ccache CCACHE_MAXSIZE=${CCACHE_MAXSIZE:-6G} CCACHE_COMPILERCHECK=content
export CCACHE_BASEDIR=$TOP CCACHE_NOHASHDIR=1 CCACHE_DEPEND=1
# Debian 12's interpreter, not whichever comes first in PATH: QEMU's configure and the packages above are made for it.
PYTHON=/usr/bin/python3
# Where the programs of ci/ find each other's modules.
PYTHONPATH=$TOP/ci/lib:$TOP/ci/tests:$TOP/ci/bench:$TOP/ci/series
export PYTHON PYTHONPATH

# Messages carry the name of the verb that was typed, whichever script below it finds the reason.
export KVM_TLB_VERB=${KVM_TLB_VERB:-${0##*/}}
die() {
	printf '%s: %s\n' "$KVM_TLB_VERB" "$*" >&2
	exit 1
}

# The kernel's makefiles and the lists of shell words here take neither.
case $TOP$CACHE in *[[:space:]:]*) die "a path with a blank or a colon ($TOP, cache $CACHE): clone the project elsewhere, or set KVM_TLB_CACHE" ;; esac

note() {
	printf '%s\n' "$*" >&2
}

# usage FILE: the comment block at the top of a verb is its help.
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

# One writer per clone.  The second one says so and waits; verbs called by a verb run under its lock.
lock() {
	[ -z "${KVM_TLB_LOCKED-}" ] || return 0
	mkdir -p "$BUILD" "$CACHE"
	exec 9>"$BUILD/.lock"
	if ! flock -n 9; then
		note "another run in this clone is at work (process $(cat "$BUILD/.lock.pid" 2>/dev/null || echo unknown)): waiting for it"
		flock 9
	fi
	echo $$ >"$BUILD/.lock.pid"
	export KVM_TLB_LOCKED=$$
}

# step LABEL CMD...: one line with the elapsed time, output to a log, the last lines of it if CMD fails.
step() {
	"$PYTHON" "$TOP/ci/lib/step.py" ${VERBOSE:+-v} "$BUILD/log" "$@"
}

# need_disk DIR: 8 GB is what a run from nothing takes at most.
need_disk() {
	local kb
	mkdir -p "$1"
	kb=$(df -Pk "$1" | awk 'NR == 2 { print $4 }')
	[ "$kb" -ge "${KVM_TLB_MIN_KB:-8388608}" ] ||
		die "$1 has $((kb / 1024)) MB free and $((${KVM_TLB_MIN_KB:-8388608} / 1024)) are needed: free some, or point KVM_TLB_CACHE elsewhere"
}

# hash_of FILE...: content key of files, names included (relative to the project).
hash_of() {
	(cd "$TOP" && sha256sum -- "$@") | sha256sum | cut -c1-16
}

# in_parts: series, checked: of each part its heading, "# part NAME", and its patches in order, those of the kernel before its selftests.
in_parts() {
	local line f seen=' ' parts=' ' part='' last='' heading='^# part( |$)'
	[ -e "$TOP/series" ] || die "there is no series file: git checkout series"
	while read -r line || [ -n "$line" ]; do
		if [[ $line =~ $heading ]]; then
			f=${line#"# part"} f=${f# }
			case $f in '' | -* | *[!a-z0-9-]*) die "series: \"$line\" is not a heading, which is \"# part NAME\" (a-z, 0-9 and -)" ;; esac
			case $parts in *" $f "*) die "series has the heading \"$line\" twice: a part is in one place" ;; esac
			[ -z "$part" ] || [ -n "$last" ] || die "part $part in series has no patches: remove its heading"
			parts="$parts$f " part=$f last=''
			echo "$line"
			continue
		fi
		case $line in '' | '#'*) continue ;; esac
		f=$line
		[ -n "$part" ] || die "$f in series is not in a part: write \"# part NAME\" above it"
		[ -s "$TOP/$f" ] || die "series names $f, which is missing or empty: git checkout $f, or run scripts/export"
		case $seen in *" $f "*) die "series lists $f twice" ;; esac
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

# in_series [PART]: the patch files in order, relative to the project: all, or the part's and those of the parts before it.
in_series() {
	local all
	all=$(in_parts) || return
	[ -n "$all" ] || return 0
	awk -v to="${1-}" '/^#/ { if (to && part == to) exit; part = $3; next } { print }' <<<"$all"
}

# of_part PART: the patch files of this part alone.
of_part() {
	local all
	all=$(in_parts) || return
	awk -v want="$1" '/^#/ { part = $3; next } part == want { print }' <<<"$all"
}

# parts: their names, in order.
parts() {
	local all
	all=$(in_parts) || return
	sed -n 's/^# part //p' <<<"$all"
}

# check_part NAME
check_part() {
	local all
	all=$(parts) || exit
	grep -qxF -e "$1" <<<"$all" || die "there is no part $1 in series (there are: $(xargs <<<"$all"))"
}

# --- the source tree

# The versions that ci/inputs pins, the base's as its tag in the cache has it.
base_version() {
	local v
	v=$(sed -n 's/^version=//p' "$TOP/ci/inputs/base")
	echo "${v//\~/_}"
}

qemu_version() {
	sed -n 's/^version=//p' "$TOP/ci/inputs/qemu"
}

# Where objects of the base come from.
alternates() {
	local dir
	echo "$REPO/objects"
	for dir in ${KDIR:+"$KDIR"} ${KVM_TLB_TREE:+"$KVM_TLB_TREE"}; do
		git -C "$dir" rev-parse --path-format=absolute --git-path objects
	done
}

# check_tree DIR: somebody's kernel git tree that is to be tested as it is.
check_tree() {
	[ -d "$1" ] || die "$1 is not a directory: --tree takes a kernel git tree"
	git -C "$1" rev-parse -q --verify HEAD >/dev/null 2>&1 || die "$1 is not a git tree with a commit: --tree takes a kernel git tree"
	git -C "$1" rev-parse -q --verify HEAD:arch/x86/kvm/Kconfig >/dev/null 2>&1 || die "$1 is not a kernel tree (no arch/x86/kvm): --tree takes a kernel git tree"
	git -C "$1" rev-parse -q --verify HEAD:tools/testing/selftests/kvm/Makefile.kvm >/dev/null 2>&1 ||
		die "$1 is too old: the rig builds KVM selftests as Linux 6.14 and newer have them (tools/testing/selftests/kvm/Makefile.kvm)"
	git --no-optional-locks -C "$1" diff --quiet HEAD -- 2>/dev/null || note "$1 has uncommitted changes, which are not built"
}

# check_kdir DIR: a kernel git tree, clean, new enough for KVM's internals that the series builds on.
check_kdir() {
	local v
	[ -d "$1" ] || die "$1 is not a directory: KDIR must be a kernel git tree"
	git -C "$1" rev-parse -q --verify HEAD >/dev/null 2>&1 || die "$1 is not a git tree with a commit: KDIR must be a kernel git tree"
	[ -e "$1/arch/x86/kvm/svm/nested.c" ] || die "$1 is not a kernel tree (no arch/x86/kvm/svm/nested.c)"
	[ -e "$1/Makefile" ] || die "$1 is not a kernel tree (no Makefile)"
	v=$(awk '/^(VERSION|PATCHLEVEL) =/ { printf "%03d", $3 } END { print "" }' "$1/Makefile")
	[ "$v" -ge 007003 ] 2>/dev/null || die "$1 is Linux $(sed -n '2s/.*= //p;3s/.*= /./p' "$1/Makefile" | tr -d '\n'), too old: the series needs 7.3 or newer"
	not_under_way "$1"
	# Looking must not write the index.
	git --no-optional-locks -C "$1" diff --quiet HEAD -- 2>/dev/null || die "$1 has uncommitted changes: commit or stash them first"
}

# not_under_way DIR: refuse what stopped half-way, since its HEAD is no base and its commits are on no branch yet.
not_under_way() {
	local d
	for d in rebase-apply rebase-merge; do
		[ ! -d "$(git -C "$1" rev-parse --path-format=absolute --git-path $d)" ] || die "$1 is in the middle of git am or rebase: finish or abort it first"
	done
}

# The branch of scripts/tree remembers its base, in the repository's own configuration.
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
			[ -n "$b" ] || die "$KDIR is on branch $BRANCH, which scripts/tree did not make: check out the base"
			echo "$b"
		else
			git -C "$KDIR" rev-parse HEAD
		fi
		return
	fi
	[ -d "$REPO" ] || die "no base in the cache: run scripts/setup"
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

# Who commits when the rig applies patches: nobody in particular, so that ids depend on content only.
am_identity() {
	export GIT_COMMITTER_NAME="KVM TLB tags series" GIT_COMMITTER_EMAIL=kvm-tlb-tags@localhost
}

# whole CMD...: out of reach of Ctrl-C, after which git leaves locks and half-written files; the caller's trap runs after it.
# Ignoring the signal would not do: git then goes on without its locks.
whole() {
	setsid -w "$@"
}

# am DIR PATCHES: apply to the work tree DIR; if one fails, or on Ctrl-C, put DIR back as it was; say which failed and why.
am() {
	local dir=$1 before p log why
	[ -n "$2" ] || return 0
	log=$BUILD/am.log
	before=$(git -C "$dir" rev-parse HEAD)
	# A second Ctrl-C must not stop the cleaning up.
	trap 'trap "" INT TERM HUP; am_undo "$dir" "$before"; note "$KVM_TLB_VERB: interrupted, $dir is as it was"; exit 130' INT TERM HUP
	while read -r p; do
		# A repacking in the background would go on after us, and hold the lock.
		if ! whole git -C "$dir" -c core.hooksPath=/dev/null -c gc.auto=0 am -q --committer-date-is-author-date --no-gpg-sign "$TOP/$p" >"$log" 2>&1; then
			whole git -C "$dir" am --abort >/dev/null 2>&1 || true
			why=$(am_file "$TOP/$p" "$dir")
			am_undo "$dir" "$before"
			sed 's/^/    /' "$log" | grep -v -e hint: -e 'git am' | head -n 8 >&2 || true
			die "$p does not apply to $(base_name): $why; rebase it with scripts/tree, or choose another base"
		fi
	done <<<"$2"
	trap - INT TERM HUP
}

am_undo() {
	whole git -C "$1" am --abort >/dev/null 2>&1 || true
	rm -rf "$(git -C "$1" rev-parse --path-format=absolute --git-path rebase-apply)"
	whole git -C "$1" reset -q --hard "$2"
}

# am_file PATCH DIR: the first file of PATCH that does not take its hunks, or that it is there already.
am_file() {
	local subject
	subject=$(git mailinfo /dev/null /dev/null <"$1" 2>/dev/null | sed -n 's/^Subject: //p' || true)
	if [ -n "$subject" ] && git -C "$2" log -n 300 --format=%s | grep -xF -e "$subject" >/dev/null; then
		echo "a commit of this name is there already"
	else
		git -C "$2" apply --check "$1" 2>&1 | sed -n 's/^error: patch failed: \(.*\):[0-9]*$/first in \1/p; s/^error: \(.*\): .*$/first in \1/p; s/^error: \(corrupt.*\|No valid.*\)/\1/p' | sed 1q || true
	fi
}

# same_patches DIR: is what ci/series/format wrote there equal to the project's?
same_patches() {
	cmp -s "$1/series" <(in_parts 2>/dev/null) && diff -r -q "$1/patches" "$TOP/patches" >/dev/null && diff -r -q "$1/selftests" "$TOP/selftests" >/dev/null
}

# The repository that scripts/tree made, for the verbs that work on its branch.
tree_repo() {
	local repo=${KDIR:-$BUILD/linux}
	[ -n "$(git -C "$repo" config "branch.$BRANCH.kvmTlbBase" 2>/dev/null || true)" ] ||
		die "no branch $BRANCH in $repo: run scripts/tree first"
	git -C "$repo" rev-parse -q --verify "refs/heads/$BRANCH" >/dev/null || die "no branch $BRANCH in $repo: run scripts/tree first"
	[ "$(git -C "$repo" symbolic-ref -q --short HEAD)" = "$BRANCH" ] || die "$repo is not on branch $BRANCH (a rebase under way?): finish it or check the branch out"
	git -C "$repo" diff --quiet HEAD -- || die "$repo has uncommitted changes: commit or stash them first"
	echo "$repo"
}
