# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Sourced by ci/build and ci/checks: configure a kernel and run make.
src=$BUILD/src

# kmake OBJ ARG...: run make, always with W=1, so that our build is the one the 0-day bot does, and no file is compiled twice.  kernel-doc,
# and sparse with C=1, check only the files in KVM_CHANGED: each takes as long as compiling a file, and ccache does not help.
kmake() {
	local obj=$1
	# shellcheck disable=SC2016 # for make
	local changed='$(filter $(patsubst $(srctree)/%,%,$<),$(KVM_CHANGED))'
	shift
	# shellcheck disable=SC2016 # for make
	KVM_CHANGED=${KVM_CHANGED-} make -C "$src" O="$obj" -j"$(jobs)" W=1 CC="ccache gcc" HOSTCC="ccache gcc" PYTHON3="$PYTHON" \
		"cmd_checkdoc=\$(if $changed,"'PYTHONDONTWRITEBYTECODE=1 $(PYTHON3) $(KERNELDOC) -none $<)' \
		"cmd_checksrc=\$(if $changed,"'$(CHECK) $(CHECKFLAGS) $(c_flags) $<)' \
		KBUILD_BUILD_TIMESTAMP=@0 KBUILD_BUILD_USER=rig KBUILD_BUILD_HOST=rig KBUILD_BUILD_VERSION=1 LOCALVERSION= "$@"
}

# kernel_files COMMIT: print the ids of all files from which a kernel is built, which excludes the selftests.
kernel_files() {
	git -C "$src" ls-tree "$1" | grep -v "$(printf '\t')tools\$"
	git -C "$src" ls-tree "$1:tools" | grep -v "$(printf '\t')testing\$"
}

# series_fragment COMMIT: print the lines of ci/config/series.config whose symbols exist in the tree.
series_fragment() {
	local line symbol kconfig
	kconfig=$(git -C "$src" show "$1:arch/x86/kvm/Kconfig")
	while read -r line; do
		symbol=${line%%=*}
		case $line in CONFIG_*) ;; *) continue ;; esac
		! grep -qx "config ${symbol#CONFIG_}" <<<"$kconfig" || echo "$line"
	done <"$TOP/ci/config/series.config"
}

# kconfigure OBJ FRAGMENT...: configure OBJ with tinyconfig and the fragments, if these or the Kconfig files changed; fail if Kconfig drops
# a line of a fragment.
kconfigure() {
	local obj=$1 asked
	shift
	mkdir -p "$obj"
	series_fragment HEAD >"$obj/.series.config"
	set -- "$@" "$obj/.series.config"
	{ echo "$*"; cat "$@"; } >"$obj/.fragments.new"
	asked=$({ cat "$obj/.fragments.new"; git -C "$src" ls-tree -r HEAD | grep Kconfig; gcc -dumpfullversion; } | sha256sum)
	[ ! -e "$obj/.config" ] || [ "$asked" != "$(cat "$obj/.asked" 2>/dev/null)" ] || return 0
	rm -f "$obj/.asked"
	if [ ! -e "$obj/.config" ] || ! cmp -s "$obj/.fragments.new" "$obj/.fragments"; then
		kmake "$obj" tinyconfig
		(cd "$obj" && "$src/scripts/kconfig/merge_config.sh" -m -O "$obj" "$obj/.config" "$@")
		mv "$obj/.fragments.new" "$obj/.fragments"
	fi
	kmake "$obj" olddefconfig
	# Kconfig drops lines silently, and then the tests would run on another configuration.  A fragment may override an earlier one.
	cat "$@" | sed -n 's/^# \(CONFIG_[A-Z0-9_]*\) is not set$/\1=n/p; /^CONFIG_[A-Z0-9_]*=/p' |
		awk -F= '{ want[$1] = $0 } END { for (c in want) print want[c] }' | while read -r line; do
		case $line in
		*=n) ! grep -q "^${line%=n}=" "$obj/.config" || echo "not off in the configuration: ${line%=n}" ;;
		*) grep -qxF "$line" "$obj/.config" || echo "not in the configuration: $line" ;;
		esac
	done >"$obj/.dropped"
	# The tree of --tree may have other options, so only list them.
	[ ! -s "$obj/.dropped" ] || { cat "$obj/.dropped"; [ -n "${KVM_TLB_ANY_CONFIG-}" ] || die "this kernel does not have the options above: correct ci/config"; }
	echo "$asked" >"$obj/.asked"
}
