# What tools/compare, tools/durable-path and tools/faces share: three nodes on loopback, and the figures of a load. To be sourced by bash.
#
# Whoever sources it sets `tool`, under which it complains, `bin` (where the binaries are), `work` (a directory for data and
# output), `cores` and `server_flags`, and calls clean_up, or what calls it, when it ends.

nodes=()     # process ids of the nodes that run now
load_pid=''  # and that of the load generator
load_ports=0 # the load goes to base+load_ports+1..3: 10 for HTTP

fail() {
    echo "$tool: $*" >&2
    exit 1
}

bad_usage() {
    echo "$tool: $*, see --help" >&2
    exit 2
}

stop_nodes() {
    local pid deadline=$((SECONDS + 10))
    for pid in "${nodes[@]}"; do
        kill -TERM "$pid" 2>/dev/null || true
    done
    for pid in "${nodes[@]}"; do
        while kill -0 "$pid" 2>/dev/null && ((SECONDS < deadline)); do
            sleep 0.05
        done
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    nodes=()
}

clean_up() {
    [[ -z $load_pid ]] || kill -KILL "$load_pid" 2>/dev/null || true
    stop_nodes
    rm -rf "$work"
}

is_taken() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# Sets `base` so that nobody listens on base+1..3 (clients) and base+11..13 (HTTP, or etcd's peers).
find_ports() {
    local n
    for ((base = 17100; base < 32000; base += 20)); do
        for n in 1 2 3 11 12 13; do
            if is_taken $((base + n)); then continue 2; fi
        done
        return
    done
    fail "no free ports on loopback"
}

# Waits until all three nodes run and listen.
await_nodes() {
    local n deadline=$((SECONDS + 60))
    for n in 1 2 3; do
        until is_taken $((base + n)); do
            kill -0 "${nodes[n - 1]}" 2>/dev/null && ((SECONDS < deadline)) ||
                fail "node $n does not listen on port $((base + n)): $(tail -n 3 "$work/$n.log")"
            sleep 0.05
        done
    done
}

# members N FORMAT: the FORMAT with the node's number and port, for each node, separated by commas.
members() {
    # The format comes from the script that calls.
    # shellcheck disable=SC2059
    printf "$2,$2,$2" 1 $((base + $1 + 1)) 2 $((base + $1 + 2)) 3 $((base + $1 + 3))
}

start_raftkv() {
    local n
    for n in 1 2 3; do
        "$bin/raftkv-server" --node-id $n --listen 127.0.0.1:$((base + n)) --http-listen 127.0.0.1:$((base + 10 + n)) \
            --data-dir "$work/node$n" --initial-cluster "$(members 0 %d=127.0.0.1:%d)" --cores "$cores" "${server_flags[@]}" \
            >"$work/$n.log" 2>&1 &
        nodes+=($!)
    done
}

# run_load WHAT GENERATOR...: runs the generator against the nodes that listen, then stops them and removes their data;
# sets `result` to its JSON line. It runs in the background, so that a signal is handled at once and not when it has ended.
run_load() {
    local what=$1
    shift
    "$@" --endpoints "$(members "$load_ports" '%.0s127.0.0.1:%d')" --pids "$(IFS=,; echo "${nodes[*]}")" --json \
        2>"$work/load.log" >"$work/load.json" &
    load_pid=$!
    wait "$load_pid" || fail "$what: $(tail -n 2 "$work/load.log" "$work"/?.log)"
    load_pid=''
    stop_nodes
    rm -rf "$work"/node?
    result=$(tail -n 1 "$work/load.json")
}

# field NAME JSON: a number. The names asked for are unique in the line.
field() {
    sed -nE "s/.*\"$1\": (-?[0-9.]+).*/\1/p" <<<"$2"
}

# median NUMBER...
median() {
    printf '%s\n' "$@" | sort -g | awk '{ v[NR] = $1 } END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}
