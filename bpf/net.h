/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* Constants of user-space headers that a BPF program can not include. */
#ifndef WB_NET_H
#define WB_NET_H

#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define SOL_IP 0
#define SOL_IPV6 41

#endif /* WB_NET_H */
