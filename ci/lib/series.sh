# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Sourced by common.sh: what the file series says, its parts and their patches.

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

# in_series_upto WHAT: print the patch files up to the end of the part WHAT, or up to the kernel patch whose subject or number is WHAT.
in_series_upto() {
	local all f to=''
	all=$(in_series) || return
	if parts | grep -qxF -e "$1"; then
		in_series "$1"
		return
	fi
	while read -r f; do
		case $f in
		patches/*) ;;
		*) continue ;;
		esac
		case $1 in
		*[!0-9]*) [ "$(subject_of "$TOP/$f")" != "$1" ] || to=$f ;;
		*) [[ $f != patches/$(printf %04d "$((10#$1))")-* ]] || to=$f ;;
		esac
		[ -z "$to" ] || break
	done <<<"$all"
	[ -n "$to" ] || die "series has no part and no kernel patch \"$1\": write its current subject"
	sed "\\|^$to\$|q" <<<"$all"
}

# subject_of FILE: print the subject of a patch.
subject_of() {
	git mailinfo /dev/null /dev/null <"$1" 2>/dev/null | sed -n 's/^Subject: //p'
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
	grep -qxF -e "$1" <<<"$all" || die "there is no part '$1' in series (choose from: $(xargs <<<"$all"))"
}
