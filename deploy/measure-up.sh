#!/bin/sh
# Measures `kanade up` on this machine (Linux, with curl): how long from its start, on an empty data directory, until
# /readyz says 200 and the machine's agent is listed; and how much memory it holds when it has then been idle for a while.
# Prints each run and the medians. What else the machine does shows in the figures.
#
#   deploy/measure-up.sh [runs [seconds idle]]      5 runs and 30 s if not given
#
# PORT (18471) and NATS_PORT (18472) must be free. KANADE names a binary to measure instead of building one.
set -eu
runs=${1:-5} idle=${2:-30} port=${PORT:-18471} nats_port=${NATS_PORT:-18472}
work=$(mktemp -d)
pid=
end() {
	[ -z "$pid" ] || kill "$pid" 2>/dev/null || true
	[ -z "$pid" ] || wait "$pid" 2>/dev/null || true
	pid=
}
trap 'end; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

binary=${KANADE:-}
if [ -z "$binary" ]; then
	binary=$work/kanade
	(cd "$(dirname "$0")/../cmd/kanade" && CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o "$binary" .)
fi

now() { date +%s%3N; }
url=http://127.0.0.1:$port
ready() {
	curl -fsS -m 2 -o /dev/null "$url/readyz" 2>/dev/null &&
		curl -fsS -m 2 -H "Authorization: Bearer $(cat "$data/api-token")" "$url/api/agents" 2>/dev/null | grep -q '"pc_id"'
}
# The figure of a line of /proc/PID/status, in MB (10^6 bytes); its kB are of 1024.
memory() { awk -v name="$1:" '$1 == name { printf "%.1f\n", $2 * 1024 / 1e6 }' "/proc/$pid/status"; }
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

i=0
while [ "$i" -lt "$runs" ]; do
	i=$((i + 1))
	data=$work/data-$i
	began=$(now)
	"$binary" up --data "$data" --listen "127.0.0.1:$port" --nats-listen "127.0.0.1:$nats_port" >"$work/out-$i" 2>&1 &
	pid=$!
	until ready; do
		kill -0 "$pid" 2>/dev/null || { cat "$work/out-$i" >&2; exit 1; }
		sleep 0.01
	done
	start=$(($(now) - began))
	sleep "$idle"
	rss=$(memory VmRSS) peak=$(memory VmHWM)
	printf 'run %d: ready after %d ms, %s MB resident after %d s idle (peak %s MB)\n' "$i" "$start" "$rss" "$idle" "$peak"
	echo "$start" >>"$work/start"
	echo "$rss" >>"$work/rss"
	end
done
printf 'median: ready after %d ms, %s MB resident\n' "$(median <"$work/start")" "$(median <"$work/rss")"
