# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Sourced by every command: paths, messages, the lock and the step runner.
set -euo pipefail
export LC_ALL=C

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BUILD=$TOP/build
CACHE=${KVM_TLB_CACHE:-${XDG_CACHE_HOME:-${HOME-}/.cache}/kvm-tlb-tags}
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

# A cache in the root directory, or wherever the command was started, is a mistake.
case $CACHE in
/.cache/kvm-tlb-tags) die "HOME is not set: set it, or KVM_TLB_CACHE to the directory of the cache" ;;
/*) [ -d "$CACHE" ] || [ ! -e "$CACHE" ] || die "$CACHE is not a directory: set KVM_TLB_CACHE to the directory of the cache" ;;
*) die "KVM_TLB_CACHE ($CACHE) is a relative path: set it to an absolute one" ;;
esac

note() {
	printf '%s\n' "$*" >&2
}

# usage FILE: print the comment block at the top of a command, which is its help.
usage() {
	sed -n '3,/^[^#]/{s/^# \{0,1\}//p}' "$1"
}

# help_if_asked FILE ARGUMENT...: an option in any place, but not after --.
help_if_asked() {
	local file=$1 a
	shift
	for a in "$@"; do
		case $a in
		--) return 0 ;;
		-h | --help)
			usage "$file"
			exit 0
			;;
		esac
	done
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

# show CMD...: print what CMD prints when it has ended.  If the reader is gone (scripts/run --list | head), that ends this script, silently.
show() {
	local out status=0
	need_python
	out=$("$@") || status=$?
	[ -z "$out" ] || printf '%s\n' "$out"
	return $status
}

# need_foreign: make what boots the L1s that are not of this project, if it is missing; ci/build/foreign --partial prints where it is.
need_foreign() {
	local why
	"$TOP/ci/build/foreign" >/dev/null 2>&1 || step "other hypervisors" "$TOP/ci/build/foreign" --build || {
		why=$(sed -n "s/^$KVM_TLB_VERB: //p" "$BUILD/log/other-hypervisors.log" 2>/dev/null | tail -n 1)
		die "${why:-cannot make what boots the other hypervisors: see $BUILD/log/other-hypervisors.log}"
	}
}

# jobs: print how many compilers to run at a time.
jobs() {
	"$PYTHON" -B "$TOP/ci/lib/machine.py"
}

# need_python: for what runs before scripts/setup, or without it.
need_python() {
	[ -x "$PYTHON" ] || die "there is no $PYTHON: run scripts/setup, or install python3"
	"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "$PYTHON is older than Python 3.11: use Debian 12"
}

# need_disk DIR: check for 8 GB of free space, the most that a first run needs.
need_disk() {
	local kb
	mkdir -p "$1"
	kb=$(df -Pk "$1" | awk 'NR == 2 { print $4 }')
	[ "$kb" -ge "${KVM_TLB_MIN_KB:-8388608}" ] ||
		die "$1 has $((kb / 1024)) MB free and $((${KVM_TLB_MIN_KB:-8388608} / 1024)) MB are needed: free some space, or set KVM_TLB_CACHE to another directory"
}

# check_kvm MODEL: die if --machine kvm cannot work on this machine, or together with the value of --model.
check_kvm() {
	case $1 in '' | off) ;; *) die "--machine kvm has no TLB model: leave out --model $1, or leave out --machine kvm" ;; esac
	need_python
	"$PYTHON" -B -c 'import guest; guest.host_kvm()'
}

. "$TOP/ci/lib/series.sh"
. "$TOP/ci/lib/git.sh"
