/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* The program that user space runs: it walks kernel objects and costs the data path nothing. */
#ifndef WB_ITER_H
#define WB_ITER_H

#include "listener.h"

static __always_inline void wb_sock_endpoints(const struct sock_common *sk, struct wb_flow *flow)
{
	if (sk->skc_family == AF_INET) {
		flow->local.addr[2] = bpf_htonl(0xffff);
		flow->local.addr[3] = sk->skc_rcv_saddr;
		flow->remote.addr[2] = bpf_htonl(0xffff);
		flow->remote.addr[3] = sk->skc_daddr;
	} else {
		bpf_probe_read_kernel(flow->local.addr, sizeof(flow->local.addr), &sk->skc_v6_rcv_saddr);
		bpf_probe_read_kernel(flow->remote.addr, sizeof(flow->remote.addr), &sk->skc_v6_daddr);
	}
	flow->local.port = bpf_htons(sk->skc_num);
	flow->remote.port = sk->skc_dport;
}

/*
 * Write a struct wb_flow and a struct wb_socket for every socket of this
 * network namespace that carries records. (An iterator over the socket storage
 * would know all namespaces, but some kernels are made to refuse it.)
 */
SEC("iter/tcp")
int wb_list_flows(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	struct wb_flow flow = {};
	struct wb_socket *s;
	struct tcp_sock *tp;

	if (!skc || skc->skc_state == BPF_TCP_LISTEN)
		return 0;
	tp = bpf_skc_to_tcp_sock(skc);
	if (!tp)
		return 0;
	s = bpf_sk_storage_get(&sockets, tp, 0, 0);
	if (!s || !s->records.n_hops)
		return 0;
	wb_sock_endpoints(skc, &flow);
	flow.tcp_state = skc->skc_state;
	flow.socket_cookie = skc->skc_cookie.counter;
	bpf_seq_write(ctx->meta->seq, &flow, sizeof(flow));
	bpf_seq_write(ctx->meta->seq, s, sizeof(*s));
	return 0;
}

/* Write a struct wb_listener for every listening socket of this network namespace. */
SEC("iter/tcp")
int wb_list_listeners(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	struct wb_listener l = {};
	struct tcp_sock *tp;
	struct wb_flow ends = {};
	const struct wb_policy *policy = wb_active_policy();
	struct cgroup *cgroup;
	int owner;

	if (!skc || skc->skc_state != BPF_TCP_LISTEN)
		return 0;
	tp = bpf_skc_to_tcp_sock(skc);
	if (!tp)
		return 0;
	wb_sock_endpoints(skc, &ends);
	l.at = ends.local;
	l.waiting = tp->inet_conn.icsk_inet.sk.sk_ack_backlog;
	l.most = tp->inet_conn.icsk_inet.sk.sk_max_ack_backlog;
	l.longest_wait = wb_longest_wait(tp);
	cgroup = tp->inet_conn.icsk_inet.sk.sk_cgrp_data.cgroup;
	owner = policy && cgroup ? wb_provider_of(policy, cgroup) : -1;
	if (policy && owner >= 0)
		l.owner = policy->providers[owner & (WB_MAX_PROVIDERS - 1)].handle;
	bpf_seq_write(ctx->meta->seq, &l, sizeof(l));
	return 0;
}

#endif /* WB_ITER_H */
