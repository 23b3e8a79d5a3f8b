/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* The program that user space runs: it walks kernel objects and costs the data path nothing. */
#ifndef WB_ITER_H
#define WB_ITER_H

#include "process.h"

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

/* Write a struct wb_flow and a struct wb_socket for every socket that carries records. */
SEC("iter/bpf_sk_storage_map")
int wb_list_flows(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct wb_socket *s = ctx->value;
	struct sock *sk = ctx->sk;
	struct wb_flow flow = {};

	if (!s || !sk || !s->records.n_hops)
		return 0;
	wb_sock_endpoints(&sk->__sk_common, &flow);
	flow.tcp_state = sk->__sk_common.skc_state;
	flow.socket_cookie = sk->__sk_common.skc_cookie.counter;
	bpf_seq_write(ctx->meta->seq, &flow, sizeof(flow));
	bpf_seq_write(ctx->meta->seq, s, sizeof(*s));
	return 0;
}

#endif /* WB_ITER_H */
