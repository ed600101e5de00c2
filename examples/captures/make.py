#!/usr/bin/env python3
"""Helpers of make.sh: the wire between the two hosts, servers and clients that no installed program offers, and the
conversion of captures to link types that Linux has no device for. The standard library is all it needs.

    make.py link tap|tun CLIENT_NAMESPACE SERVER_NAMESPACE   two devices with a wire between them
    make.py serve                                            DNS, echo, and HTTP with chunked responses
    make.py ping|dns|echo|unreachable|pipeline|pieces|scan|abort ADDRESS ...
    make.py relabel LINK_TYPE HEX_HEADER FROM TO [4|6]       puts a header in front of each packet of a raw IP capture
    make.py tag VLAN FROM TO                                 puts an 802.1Q tag into each frame
    make.py swap FROM TO                                     the same capture in the other byte order
"""

import collections
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_TAP, IFF_NO_PI = 0x0001, 0x0002, 0x1000
LOSSY_PORT = 8081
DELAY_S = 0.002


# --- the wire -------------------------------------------------------------------------------------------------------

def open_device(name, flags):
    fd = os.open('/dev/net/tun', os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack('16sH14x', name.encode(), flags | IFF_NO_PI))
    return fd


def from_lossy_port(frame):
    """A full-sized TCP segment over IPv4 from the port whose traffic suffers."""
    return (len(frame) > 1000 and frame[12:14] == b'\x08\x00' and frame[23] == 6
            and struct.unpack_from('!H', frame, 34)[0] == LOSSY_PORT)


def link(kind, client, server):
    """Carries frames both ways with a delay; of those from the lossy port three get lost, two overtake a third, and one
    comes twice."""
    flags = IFF_TAP if kind == 'tap' else IFF_TUN
    fds = [open_device('wire0', flags), open_device('wire1', flags)]
    for name, namespace in (('wire0', client), ('wire1', server)):
        subprocess.run(['ip', 'link', 'set', name, 'netns', namespace], check=True)
    print('ready', flush=True)
    count, held, on_the_way = 0, b'', collections.deque()
    while True:
        wait = max(0, on_the_way[0][0] - time.monotonic()) if on_the_way else None
        for fd in select.select(fds, [], [], wait)[0]:
            frame = os.read(fd, 65536)
            out = fds[0] if fd == fds[1] else fds[1]
            frames = [frame]
            if kind == 'tap' and from_lossy_port(frame):
                count += 1
                if count in (9, 31, 32):
                    frames = []
                elif count == 20:
                    held, frames = frame, []
                elif count == 22:
                    frames = [frame, held]
                elif count == 40:
                    frames = [frame, frame]
            on_the_way.extend((time.monotonic() + DELAY_S, out, one) for one in frames)
        while on_the_way and on_the_way[0][0] <= time.monotonic():
            _, out, frame = on_the_way.popleft()
            try:
                os.write(out, frame)
            except OSError:
                pass  # the other end is not up yet


# --- servers --------------------------------------------------------------------------------------------------------

class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    server_version, sys_version = 'example', ''

    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Type', 'text/plain')
        self.send_header('Transfer-Encoding', 'chunked')
        self.end_headers()
        for number in range(8):
            piece = b'Piece %d of a response whose length nobody knew.\n' % number * (number * 3 + 1)
            self.wfile.write(b'%x\r\n%s\r\n' % (len(piece), piece))
            time.sleep(0.01)
        self.wfile.write(b'0\r\n\r\n')

    def do_POST(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        answer = b'received %d bytes\n' % len(body)
        self.send_response(201)
        self.send_header('Content-Length', str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True


def name_answer(query):
    """The answer to a DNS query: addresses of www.example.test, and no other name exists."""
    end = query.index(b'\0', 12) + 1
    name, kind = query[12:end].lower(), struct.unpack_from('!H', query, end)[0]
    addresses = {1: socket.inet_aton('192.0.2.80'), 28: socket.inet_pton(socket.AF_INET6, '2001:db8::80')}
    known = name == b'\x03www\x07example\x04test\0'
    answer = addresses.get(kind, b'') if known else b''
    record = b'\xc0\x0c' + struct.pack('!HHIH', kind, 1, 300, len(answer)) + answer if answer else b''
    header = query[:2] + struct.pack('!HHHHH', 0x8180 if known else 0x8183, 1, 1 if answer else 0, 0, 0)
    return header + query[12:end + 4] + record


def serve_datagrams(port, answer):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind(('::', port))
    while True:
        data, peer = s.recvfrom(65536)
        s.sendto(answer(data), peer)


def serve():
    threading.Thread(target=serve_datagrams, args=(53, name_answer), daemon=True).start()
    threading.Thread(target=serve_datagrams, args=(7, lambda data: data), daemon=True).start()
    server = Server(('::', 8000), Handler)
    print('ready', flush=True)
    server.serve_forever()


# --- clients --------------------------------------------------------------------------------------------------------

def family(address):
    return socket.AF_INET6 if ':' in address else socket.AF_INET


def datagram_socket(address):
    s = socket.socket(family(address), socket.SOCK_DGRAM)
    s.settimeout(3)
    return s


def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ping(address, count):
    """Echo requests, and the answers awaited."""
    is_six = ':' in address
    s = socket.socket(family(address), socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if is_six else socket.IPPROTO_ICMP)
    s.settimeout(3)
    for number in range(int(count)):
        head, body = [128 if is_six else 8, 0], bytes(range(8, 64))
        packet = struct.pack('!BBHHH', *head, 0, 0x4E46, number) + body
        packet = struct.pack('!BBHHH', *head, checksum(packet), 0x4E46, number) + body
        s.sendto(packet, (address, 0))
        while True:
            reply = s.recv(2048)
            icmp = reply if is_six else reply[(reply[0] & 15) * 4:]
            if icmp[0] == (129 if is_six else 0) and struct.unpack_from('!HH', icmp, 4) == (0x4E46, number):
                break
        time.sleep(0.02)


def dns(address, *names):
    """An A and an AAAA query for each name."""
    s = datagram_socket(address)
    for number, name in enumerate(names):
        labels = b''.join(bytes([len(label)]) + label.encode() for label in name.split('.')) + b'\0'
        for kind in (1, 28):
            s.sendto(struct.pack('!HHHHHH', 0x4E00 + number, 0x0100, 1, 0, 0, 0) + labels
                     + struct.pack('!HH', kind, 1), (address, 53))
            s.recv(2048)


def echo(address, *lengths):
    """Datagrams that come back; long ones as IP fragments."""
    s = datagram_socket(address)
    for length in lengths:
        data = bytes(i * 7 & 0xFF for i in range(int(length)))
        s.sendto(data, (address, 7))
        assert s.recv(65536) == data


def unreachable(address):
    """A datagram to a port where nobody listens: the kernel reports the ICMP error that comes back."""
    s = datagram_socket(address)
    s.connect((address, 9999))
    s.send(b'is anybody there?')
    try:
        s.recv(100)
    except ConnectionRefusedError:
        return
    raise SystemExit('no ICMP error came back')


def http_connection(address, port=80):
    s = socket.create_connection((address, port), timeout=3)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def drain(s):
    while s.recv(65536):
        pass
    s.close()


def request(path, *headers):
    return '\r\n'.join([f'GET {path} HTTP/1.1', 'Host: www.example.test', *headers, '', '']).encode()


def pipeline(address):
    """Four requests in one segment."""
    s = http_connection(address)
    s.sendall(request('/small.txt') + request('/missing') + request('/style.css')
              + request('/small.txt', 'Connection: close'))
    drain(s)


def pieces(address):
    """One request in several segments, cut at awkward places."""
    s = http_connection(address)
    text = request('/small.txt', 'X-Cut: here', 'Connection: close')
    at = 0
    for end in (1, 6, 20, 32, text.index(b'\r\n\r\n') + 1, text.index(b'\r\n\r\n') + 3, len(text)):
        s.sendall(text[at:end])
        at = end
        time.sleep(0.01)
    drain(s)


def scan(address, first, last):
    """Connections to closed ports."""
    for port in range(int(first), int(last) + 1):
        s = socket.socket(family(address))
        s.settimeout(1)
        s.connect_ex((address, port))
        s.close()


def abort(address):
    """Gives up in the middle of a download: the kernel sends RST."""
    s = http_connection(address)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    s.sendall(request('/photo.bin'))
    s.recv(2000)
    s.close()


# --- captures -------------------------------------------------------------------------------------------------------

def read_pcap(path):
    """The file header's fields and the packets of a little-endian pcap file."""
    with open(path, 'rb') as file:
        data = file.read()
    header, at, packets = struct.unpack_from('<IHHiIII', data), 24, []
    while at < len(data):
        seconds, fraction, captured, original = struct.unpack_from('<IIII', data, at)
        packets.append((seconds, fraction, original, data[at + 16:at + 16 + captured]))
        at += 16 + captured
    return header, packets


def write_pcap(path, header, packets, order='<'):
    with open(path, 'wb') as file:
        file.write(struct.pack(order + 'IHHiIII', *header))
        for seconds, fraction, original, data in packets:
            file.write(struct.pack(order + 'IIII', seconds, fraction, len(data), original) + data)


def relabel(link_type, prefix, source, target, version=''):
    """`4` and `6` in the header stand for what differs between IPv4 and IPv6: `02000000,1e000000`."""
    header, packets = read_pcap(source)
    prefixes = dict(zip((4, 6), (bytes.fromhex(p) for p in (prefix.split(',') * 2)[:2])))
    changed = [(seconds, fraction, original + len(prefixes[data[0] >> 4]), prefixes[data[0] >> 4] + data)
               for seconds, fraction, original, data in packets if version in ('', str(data[0] >> 4))]
    write_pcap(target, (*header[:6], int(link_type)), changed)


def tag(vlan, source, target):
    header, packets = read_pcap(source)
    inserted = struct.pack('!HH', 0x8100, int(vlan))
    write_pcap(target, header, [(seconds, fraction, original + 4, data[:12] + inserted + data[12:])
                                for seconds, fraction, original, data in packets])


def swap(source, target):
    write_pcap(target, *read_pcap(source), order='>')


if __name__ == '__main__':
    globals()[sys.argv[1]](*sys.argv[2:])
