/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* Who listens at an address, for whom, and whether he accepts. */
#ifndef WB_LISTENER_H
#define WB_LISTENER_H

#include "policy.h"
#include "process.h"

#define WB_REACHABLE WB_COUNTERS

/* The tuple of a packet from src to dst, and its size; src is NULL for one from nowhere in particular. */
static __always_inline __u32 wb_lookup_tuple(struct bpf_sock_tuple *tuple, const struct wb_endpoint *src,
					     const struct wb_endpoint *dst)
{
	__builtin_memset(tuple, 0, sizeof(*tuple));
	if (wb_is_mapped(dst->addr)) {
		tuple->ipv4.daddr = dst->addr[3];
		tuple->ipv4.dport = dst->port;
		if (src) {
			tuple->ipv4.saddr = src->addr[3];
			tuple->ipv4.sport = src->port;
		}
		return sizeof(tuple->ipv4);
	}
	__builtin_memcpy(tuple->ipv6.daddr, dst->addr, sizeof(dst->addr));
	tuple->ipv6.dport = dst->port;
	if (src) {
		__builtin_memcpy(tuple->ipv6.saddr, src->addr, sizeof(src->addr));
		tuple->ipv6.sport = src->port;
	}
	return sizeof(tuple->ipv6);
}

/* Who would be given a SYN to this endpoint, in this network namespace. To be released. */
static __always_inline struct bpf_sock *wb_find_listener(struct bpf_sock_addr *ctx, const struct wb_endpoint *at)
{
	struct bpf_sock_tuple tuple;

	return bpf_sk_lookup_tcp(ctx, &tuple, wb_lookup_tuple(&tuple, NULL, at), BPF_F_CURRENT_NETNS, 0);
}

/* Who would be given a datagram to this endpoint, likewise. */
static __always_inline struct bpf_sock *wb_find_receiver(struct bpf_sock_addr *ctx, const struct wb_endpoint *src,
							 const struct wb_endpoint *at)
{
	struct bpf_sock_tuple tuple;

	return bpf_sk_lookup_udp(ctx, &tuple, wb_lookup_tuple(&tuple, src, at), BPF_F_CURRENT_NETNS, 0);
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
