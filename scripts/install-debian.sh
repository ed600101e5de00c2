#!/bin/sh
# Installs the Debian packages that tests and demo use, where they are missing: `scripts/install-debian.sh [GROUP...]`.
#
#     test    captures, namespaces, clients and servers, etcd
#     demo    what `nfactor demo` sends through a cluster
#     model   spin and a C compiler, for `npm run model` and the benches' twin in C
#     dpdk    testpmd, for the tests of memif against DPDK
#     container  a container engine (Docker, 250 MB), for the tests of nodes in containers
#
# Without a group: all of them. It needs root and a Debian with network; what it cannot install it names, and tests skip what is not there.
# It always ends with status 0, so that it can stand before anything else. Services that come with packages are neither started nor enabled.

# The number at the end of a package of DPDK is that of its version; apt takes a pattern.
# Group, what shows that the package is there (a program, or a pattern of files), package.
table='
test tcpdump tcpdump
test tshark tshark
test editcap tshark
test ip iproute2
test ping iputils-ping
test curl curl
test openssl openssl
test iperf3 iperf3
test nginx nginx-light
test ssh openssh-client
test sshd openssh-server
test etcd etcd-server
demo ip iproute2
model spin spin
model gcc gcc
container dockerd docker.io
dpdk dpdk-testpmd dpdk-dev
dpdk /usr/lib/*/dpdk/pmds-*/librte_net_memif.so* ^librte-net-memif[0-9]*$
'
# Services that come with a package.
services='nginx-light=nginx openssh-server=ssh etcd-server=etcd docker.io=docker.service docker.io=docker.socket'

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
groups=${*:-test demo model dpdk container}
say() { echo "install-debian: $*" >&2; }

for group in $groups; do
  case $group in test | demo | model | dpdk | container) ;; *) say "there is no group $group (there are test, demo, model, dpdk, container)" ;; esac
done

is_there() {
  case $1 in
    /*) for file in $1; do [ -e "$file" ] && return 0; done; return 1 ;;
    *) command -v "$1" > /dev/null ;;
  esac
}

# Whichever packages are missing, each once.
missing() {
  echo "$table" | while read -r group sign package; do
    case " $groups " in *" $group "*) is_there "$sign" || echo "$package" ;; esac
  done
}
once() { found=; for one in $(missing); do case " $found " in *" $one "*) ;; *) found="$found $one" ;; esac; done; echo "${found# }"; }

# Patterns of file names are for is_there alone.
set -f
wanted=$(set +f; once)
[ -z "$wanted" ] && exit 0

if ! command -v apt-get > /dev/null; then say "this is no Debian; left out: $wanted"; exit 0; fi
if [ "$(id -u)" != 0 ]; then say "needs root; left out: $wanted"; exit 0; fi

export DEBIAN_FRONTEND=noninteractive
apt() { timeout 600 apt-get -q -y -o Acquire::http::Timeout=15 -o Acquire::Retries=1 -o DPkg::Lock::Timeout=60 "$@" > "$log" 2>&1; }
log=$(mktemp)
# While this is there nothing is started.
policy=${NFACTOR_POLICY_RC_D:-/usr/sbin/policy-rc.d}
made_policy=
if [ ! -e "$policy" ]; then printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod 755 "$policy" && made_policy=yes; fi
trap 'rm -f "$log"; [ -z "$made_policy" ] || rm -f "$policy"' EXIT
trap 'exit 0' INT TERM

say "installs $wanted"
apt update || say "no list of packages could be fetched: $(grep -m 1 -E '^(E|Err)' "$log")"
# One that is not there keeps the others from nothing.
# shellcheck disable=SC2086
apt install --no-install-recommends $wanted || for package in $wanted; do apt install --no-install-recommends "$package"; done

left=$(set +f; once)
for service in $services; do
  case " $wanted " in
    *" ${service%=*} "*) command -v systemctl > /dev/null && systemctl -q disable "${service#*=}" > /dev/null 2>&1 ;;
  esac
done
[ -z "$left" ] || say "left out, for they could not be installed: $left"
exit 0
