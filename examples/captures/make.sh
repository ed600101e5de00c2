#!/usr/bin/env bash
# Makes the captures in this folder again, with real programs on two real network stacks:
#
#     namespace nfactor-client                            namespace nfactor-server
#     curl, iperf3, python3        wire0 ======== wire1   nginx, iperf3, python3
#     192.0.2.10  2001:db8::10      |                     192.0.2.80  2001:db8::80
#                                tcpdump
#
# The wire is a program between two TAP devices (make.py link), so that segments have the size and the checksums that
# they would have on a cable, and that a few of them can be lost or overtake one another.
#
# Needs root, /dev/net/tun, and tcpdump, tshark, nginx, curl, iperf3, iproute2, python3. Takes about half a minute.
# Namespaces and processes are removed in the end, whatever happens. Usage: make.sh [FOLDER]

set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
target=$(mkdir -p "${1:-$here}" && cd "${1:-$here}" && pwd)
work=$(mktemp -d /tmp/nfactor-captures.XXXXXX)
client=nfactor-client-$$
server=nfactor-server-$$
children=()

cleanup() {
  local status=$?
  set +e
  for child in "${children[@]}"; do kill "$child" 2>/dev/null; done
  wait 2>/dev/null
  ip netns del "$client" 2>/dev/null
  ip netns del "$server" 2>/dev/null
  rm -rf "$work"
  exit "$status"
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP

if [[ $(id -u) != 0 ]]; then echo "make.sh: needs root, for network namespaces" >&2; exit 1; fi
for program in ip tcpdump tshark editcap mergecap nginx curl iperf3 python3; do
  command -v "$program" >/dev/null || { echo "make.sh: $program is not installed" >&2; exit 1; }
done
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY all_proxy

at_client() { timeout 20 ip netns exec "$client" "$@"; }
at_server() { timeout 20 ip netns exec "$server" "$@"; }
helper() { at_client python3 "$here/make.py" "$@"; }

# start NAME COMMAND...: in the background, until make.sh ends; its output goes to $work/NAME.log
start() {
  local name=$1
  shift
  "$@" >"$work/$name.log" 2>&1 &
  children+=($!)
}

# wait_for NAME TEXT: until the log of a started program shows the text
wait_for() {
  for _ in $(seq 200); do
    grep -qs "$2" "$work/$1.log" && return
    sleep 0.05
  done
  echo "make.sh: $1 did not start:" >&2
  cat "$work/$1.log" >&2
  exit 1
}

# capture NAME DEVICE TCPDUMP_OPTIONS...: into $work/NAME.pcap, until end_capture
capture() {
  name=$1
  local device=$2
  shift 2
  # Longer than any frame here; with tcpdump's own choice its buffer has room for a handful of frames only.
  ip netns exec "$client" tcpdump -Z root -i "$device" -s 2048 -B 8192 --immediate-mode -U -n \
    -w "$work/$name.pcap" "$@" >"$work/$name.log" 2>&1 &
  tcpdump_pid=$!
  children+=("$tcpdump_pid")
  wait_for "$name" 'listening on'
}

end_capture() {
  sleep 0.3 # what is still on the wire
  kill -INT "$tcpdump_pid"
  wait "$tcpdump_pid" || true
  grep -q '^0 packets dropped by kernel' "$work/$name.log" || { cat "$work/$name.log" >&2; exit 1; }
}

# connect tap|tun: a wire between the namespaces, instead of the one before
link_pid=
connect() {
  if [[ -n $link_pid ]]; then kill "$link_pid"; wait "$link_pid" || true; fi
  start "link-$1" python3 "$here/make.py" link "$1" "$client" "$server"
  link_pid=$!
  wait_for "link-$1" ready
  if [[ $1 == tap ]]; then
    ip -n "$client" link set wire0 address 00:00:5e:00:53:10
    ip -n "$server" link set wire1 address 00:00:5e:00:53:80
  fi
  ip -n "$client" address add 192.0.2.10/24 dev wire0
  ip -n "$server" address add 192.0.2.80/24 dev wire1
  ip -n "$client" address add 2001:db8::10/64 dev wire0 nodad
  ip -n "$server" address add 2001:db8::80/64 dev wire1 nodad
  ip -n "$client" link set wire0 up
  ip -n "$server" link set wire1 up
}

ip netns add "$client"
ip netns add "$server"
ip -n "$client" link set lo up
ip -n "$server" link set lo up
connect tap

# What the server has to offer: text that can be compressed and bytes that cannot, the same ones every time.
mkdir "$work/www"
python3 - "$work/www" <<'END'
import random, sys
rng, folder = random.Random(1), sys.argv[1]
words = 'flow packet actor chain runtime switch port link batch epoch record verdict replica source target'.split()
def text(length):
    out = ''
    while len(out) < length:
        out += ' '.join(rng.choice(words) for _ in range(12)).capitalize() + '.\n'
    return out[:length]
def save(name, data):
    with open(f'{folder}/{name}', 'wb') as file:
        file.write(data if isinstance(data, bytes) else data.encode())
save('index.html', f'<!doctype html>\n<title>Example</title>\n<link rel=stylesheet href=/style.css>\n<p>{text(3000)}')
save('style.css', 'p { max-width: 40em }\n' * 20)
save('small.txt', 'A small file.\n')
save('empty.txt', '')
save('article.txt', text(40000))
save('photo.bin', rng.randbytes(90000))
END
touch -d '2024-01-01T00:00:00Z' "$work"/www/*

cat >"$work/nginx.conf" <<END
user root;
worker_processes 1;
daemon off;
pid $work/nginx.pid;
error_log stderr;
events { }
http {
  types { text/html html; text/css css; text/plain txt; }
  default_type application/octet-stream;
  access_log off;
  gzip on;
  gzip_types text/plain text/css;
  client_body_temp_path $work/body;
  proxy_temp_path $work/proxy;
  fastcgi_temp_path $work/fastcgi;
  uwsgi_temp_path $work/uwsgi;
  scgi_temp_path $work/scgi;
  server {
    listen 80;
    listen [::]:80;
    listen 8081;
    server_name www.example.test;
    root $work/www;
    location /moved { return 301 /index.html; }
  }
}
END
start nginx ip netns exec "$server" nginx -e stderr -c "$work/nginx.conf"
start iperf3 ip netns exec "$server" iperf3 --server --forceflush
start serve ip netns exec "$server" python3 -u "$here/make.py" serve
wait_for iperf3 listening
wait_for serve ready
for _ in $(seq 100); do
  at_server curl -sf -o "$work/out" http://192.0.2.80/small.txt && break
  sleep 0.05
done

six='[2001:db8::80]'
fetch() { at_client curl -sS --max-time 10 -o "$work/out" "$@"; }
# The host's name stands in the requests, without a name server being asked for it.
fetch4() { fetch --resolve '*:80:192.0.2.80' --resolve '*:8000:192.0.2.80' --resolve '*:8081:192.0.2.80' "$@"; }
fetch6() { fetch --resolve "*:80:$six" --resolve "*:8000:$six" "$@"; }
site=http://www.example.test

# --- web: what a day of traffic may look like --------------------------------------------------------------------

capture web wire0
helper ping 192.0.2.80 3
helper ping 2001:db8::80 3
helper dns 192.0.2.80 www.example.test nowhere.example.test
helper dns 2001:db8::80 www.example.test
fetch4 $site/ -o "$work/o" $site/style.css -o "$work/o" $site/small.txt -o "$work/o" $site/empty.txt \
  -o "$work/o" $site/photo.bin
fetch6 $site/ -o "$work/o" $site/style.css -o "$work/o" $site/article.txt
fetch4 --head $site/photo.bin
fetch4 $site/missing.html
fetch4 --location $site/moved
fetch4 --header 'If-Modified-Since: Mon, 01 Jan 2024 00:00:00 GMT' $site/small.txt
fetch4 --range 1000-1999 $site/photo.bin
fetch4 --compressed $site/article.txt
fetch4 --http1.0 $site/small.txt
fetch4 "$site/search?q=1%27%20OR%20%271%27=%271"
fetch4 --path-as-is $site/../../etc/passwd
helper pipeline 192.0.2.80
helper pieces 192.0.2.80
fetch4 $site:8000/chunked -o "$work/o" $site:8000/chunked
fetch6 $site:8000/chunked
fetch4 --data 'name=value&other=1' $site:8000/form
fetch6 --data-binary "@$work/www/article.txt" --header 'Expect: 100-continue' $site:8000/upload
parallel=()
for page in index.html style.css small.txt article.txt; do
  fetch4 $site/$page -o "$work/p1" &
  parallel+=($!)
  fetch6 $site/$page -o "$work/p2" &
  parallel+=($!)
done
wait "${parallel[@]}"
fetch4 $site:8081/photo.bin # loss, reordering and a duplicate on the way
helper abort 192.0.2.80
fetch4 --connect-to ::192.0.2.80:81 $site/ 2>/dev/null && exit 1
helper scan 192.0.2.80 20 35
helper unreachable 192.0.2.80
helper unreachable 2001:db8::80
helper echo 192.0.2.80 100 4000
helper echo 2001:db8::80 100 4000
at_client iperf3 --client 192.0.2.80 --udp --bitrate 5M --length 1200 --blockcount 60 --repeating-payload >"$work/out"
end_capture

# --- the other link types, each with a ping and a small download over IPv4 and IPv6 -------------------------------

small_traffic() {
  helper ping 192.0.2.80 1
  fetch4 $site/small.txt
  helper ping 2001:db8::80 1
  fetch6 $site/small.txt
}
# IPv6 housekeeping (router solicitation, multicast reports) comes at its own times.
only='tcp or icmp or (icmp6 and (ip6[40] == 128 or ip6[40] == 129))'

capture ethernet wire0 --time-stamp-precision=nano "$only"
small_traffic
end_capture
capture linux-sll any -y LINUX_SLL "$only"
small_traffic
end_capture
capture linux-sll2 any -y LINUX_SLL2 "$only"
small_traffic
end_capture
capture loopback lo
helper ping 127.0.0.1 1
helper ping ::1 1
helper scan 127.0.0.1 9 9
helper scan ::1 9 9
end_capture

connect tun
capture raw wire0 "$only"
small_traffic
end_capture

# --- the files ----------------------------------------------------------------------------------------------------

cd "$work"
gzip -9n <web.pcap >"$target/web.pcap.gz"
cp linux-sll.pcap linux-sll2.pcap loopback.pcap raw.pcap "$target"
cp ethernet.pcap "$target/nanoseconds.pcap"
editcap -F pcap ethernet.pcap "$target/ethernet.pcap"
editcap -F modpcap ethernet.pcap "$target/modified.pcap"
python3 "$here/make.py" swap "$target/ethernet.pcap" "$target/big-endian.pcap"
python3 "$here/make.py" tag 7 "$target/ethernet.pcap" "$target/vlan.pcap"
python3 "$here/make.py" relabel 0 02000000,1e000000 raw.pcap "$target/null.pcap"
python3 "$here/make.py" relabel 108 00000002,00000018 raw.pcap "$target/loop.pcap"
python3 "$here/make.py" relabel 9 21,57 raw.pcap "$target/ppp.pcap"
python3 "$here/make.py" relabel 50 ff030021,ff030057 raw.pcap "$target/ppp-hdlc.pcap"
python3 "$here/make.py" relabel 228 '' raw.pcap "$target/ipv4.pcap" 4
python3 "$here/make.py" relabel 229 '' raw.pcap "$target/ipv6.pcap" 6
tcpdump -r ethernet.pcap -w ethernet-four.pcap 'ip' 2>/dev/null
tcpdump -r linux-sll2.pcap -w linux-sll2-four.pcap 'ip' 2>/dev/null
mergecap -F pcapng -w "$target/several-interfaces.pcapng" ethernet-four.pcap "$target/ipv4.pcap" linux-sll2-four.pcap
editcap -F pcapng ethernet-four.pcap first.pcapng
editcap -F pcapng "$target/ipv6.pcap" second.pcapng
cat first.pcapng second.pcapng >"$target/two-sections.pcapng"

cd "$target"
capinfos -T -r -c -s web.pcap.gz ./*.pcap ./*.pcapng
