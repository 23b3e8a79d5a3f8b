/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* Who listens at an address, for whom, and whether he accepts. */
#ifndef WB_LISTENER_H
#define WB_LISTENER_H

#include "policy.h"
#include "process.h"

#define WB_REACHABLE WB_COUNTERS

/* Who would be given a SYN to this endpoint, in this network namespace. To be released. */
static __always_inline struct bpf_sock *wb_find_listener(struct bpf_sock_addr *ctx, const struct wb_endpoint *at)
{
	struct bpf_sock_tuple tuple = {};
	__u32 size;

	if (wb_is_mapped(at->addr)) {
		tuple.ipv4.daddr = at->addr[3];
		tuple.ipv4.dport = at->port;
		size = sizeof(tuple.ipv4);
	} else {
		__builtin_memcpy(tuple.ipv6.daddr, at->addr, sizeof(at->addr));
		tuple.ipv6.dport = at->port;
		size = sizeof(tuple.ipv6);
	}
	return bpf_sk_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
}

/* Who would be given a datagram to this endpoint from nowhere in particular. To be released. */
static __always_inline struct bpf_sock *wb_find_receiver(struct bpf_sock_addr *ctx, const struct wb_endpoint *at)
{
	struct bpf_sock_tuple tuple = {};
	__u32 size;

	if (wb_is_mapped(at->addr)) {
		tuple.ipv4.daddr = at->addr[3];
		tuple.ipv4.dport = at->port;
		size = sizeof(tuple.ipv4);
	} else {
		__builtin_memcpy(tuple.ipv6.daddr, at->addr, sizeof(at->addr));
		tuple.ipv6.dport = at->port;
		size = sizeof(tuple.ipv6);
	}
	return bpf_sk_lookup_udp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
}

/* How long the oldest connection in a listener's queue has waited for accept(), in microseconds; 0: there is none. */
static __always_inline __u64 wb_longest_wait(const struct tcp_sock *listener)
{
	struct request_sock *oldest = listener->inet_conn.icsk_accept_queue.rskq_accept_head;
	__u64 established = 0, now = bpf_ktime_get_ns() / 1000;
	struct sock *child = NULL;

	/* It can be accepted and freed meanwhile: then we read what is no time, or that of a wait that just ended. */
	if (!oldest || bpf_probe_read_kernel(&child, sizeof(child), &oldest->sk) || !child)
		return 0;
	bpf_probe_read_kernel(&established, sizeof(established),
			      (void *)child + bpf_core_field_offset(struct tcp_sock, rcvq_space.time));
	return established && established < now ? now - established : 0;
}

/* Why a listener can not be given connections for the provider; WB_REACHABLE if it can. */
static __always_inline enum wb_counter wb_listener_health(struct bpf_sock *sk, const struct wb_provider *p)
{
	struct tcp_sock *listener = bpf_skc_to_tcp_sock(sk);
	const struct sock *s;

	if (!listener || !wb_socket_is_of(sk, p->cgroup, p->cgroup_level))
		return WB_DOWN_FOREIGN_LISTENER;
	s = &listener->inet_conn.icsk_inet.sk;
	/* The kernel drops SYNs from here on: sk_acceptq_is_full(). */
	if (s->sk_ack_backlog > s->sk_max_ack_backlog)
		return WB_DOWN_BACKLOG_FULL;
	if (s->sk_ack_backlog && wb_longest_wait(listener) > p->stuck_after)
		return WB_DOWN_STUCK;
	return WB_REACHABLE;
}

#endif /* WB_LISTENER_H */
