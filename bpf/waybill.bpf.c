// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/*
 * The hooks. Each translates between the kernel's context and ours and calls
 * the one function that does the work. ARCHITECTURE.md follows a connection
 * through them.
 */
#include <stdbool.h>
#include <stddef.h>

#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/in.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#include "net.h"
#include "connect.h"
#include "datagram.h"
#include "flight.h"
#include "sockopt.h"
#include "source.h"
#include "iter.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

SEC("cgroup/connect4")
int wb_connect4(struct bpf_sock_addr *ctx)
{
	struct wb_attempt a = { .query.dst.port = ctx->user_port };
	const struct wb_endpoint *dst;
	int verdict;

	a.query.dst.addr[2] = bpf_htonl(0xffff);
	a.query.dst.addr[3] = ctx->user_ip4;
	verdict = wb_connect(ctx, &a);
	dst = wb_new_dst(&a);
	if (dst) {
		ctx->user_ip4 = dst->addr[3];
		ctx->user_port = dst->port;
	}
	return verdict;
}

static __always_inline void wb_read_dst6(struct bpf_sock_addr *ctx, struct wb_endpoint *dst)
{
	dst->addr[0] = ctx->user_ip6[0];
	dst->addr[1] = ctx->user_ip6[1];
	dst->addr[2] = ctx->user_ip6[2];
	dst->addr[3] = ctx->user_ip6[3];
}

static __always_inline void wb_write_dst6(struct bpf_sock_addr *ctx, const struct wb_endpoint *dst)
{
	ctx->user_ip6[0] = dst->addr[0];
	ctx->user_ip6[1] = dst->addr[1];
	ctx->user_ip6[2] = dst->addr[2];
	ctx->user_ip6[3] = dst->addr[3];
	ctx->user_port = dst->port;
}

SEC("cgroup/connect6")
int wb_connect6(struct bpf_sock_addr *ctx)
{
	struct wb_attempt a = { .query.dst.port = ctx->user_port };
	const struct wb_endpoint *dst;
	int verdict;

	wb_read_dst6(ctx, &a.query.dst);
	verdict = wb_connect(ctx, &a);
	dst = wb_new_dst(&a);
	if (dst)
		wb_write_dst6(ctx, dst);
	return verdict;
}

SEC("cgroup/sendmsg4")
int wb_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct wb_attempt a = { .query.dst.port = ctx->user_port };
	const struct wb_endpoint *dst;
	const __be32 *source;
	int verdict;

	a.query.dst.addr[2] = bpf_htonl(0xffff);
	a.query.dst.addr[3] = ctx->msg_src_ip4;
	if (!wb_bind(ctx, wb_is_peer_address(a.query.dst.addr)))
		return 0;
	a.query.dst.addr[3] = ctx->user_ip4;
	verdict = wb_send(ctx, &a);
	dst = wb_new_dst(&a);
	if (dst) {
		ctx->user_ip4 = dst->addr[3];
		ctx->user_port = dst->port;
	}
	source = wb_new_source(&a);
	if (source)
		ctx->msg_src_ip4 = source[3];
	return verdict;
}

SEC("cgroup/sendmsg6")
int wb_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct wb_attempt a = { .query.dst.port = ctx->user_port };
	const struct wb_endpoint *dst;
	const __be32 *source;
	int verdict;

	/* Read into what is going to have the destination. */
	a.query.dst.addr[0] = ctx->msg_src_ip6[0];
	a.query.dst.addr[1] = ctx->msg_src_ip6[1];
	a.query.dst.addr[2] = ctx->msg_src_ip6[2];
	a.query.dst.addr[3] = ctx->msg_src_ip6[3];
	if (!wb_bind(ctx, wb_is_peer_address(a.query.dst.addr)))
		return 0;
	wb_read_dst6(ctx, &a.query.dst);
	verdict = wb_send(ctx, &a);
	dst = wb_new_dst(&a);
	if (dst)
		wb_write_dst6(ctx, dst);
	source = wb_new_source(&a);
	if (source) {
		ctx->msg_src_ip6[0] = source[0];
		ctx->msg_src_ip6[1] = source[1];
		ctx->msg_src_ip6[2] = source[2];
		ctx->msg_src_ip6[3] = source[3];
	}
	return verdict;
}

SEC("cgroup/bind4")
int wb_bind4(struct bpf_sock_addr *ctx)
{
	return wb_bind(ctx, wb_is_peer_ip4(ctx->user_ip4));
}

SEC("cgroup/bind6")
int wb_bind6(struct bpf_sock_addr *ctx)
{
	struct wb_endpoint at = {};

	wb_read_dst6(ctx, &at);
	return wb_bind(ctx, wb_is_peer_address(at.addr));
}

SEC("cgroup/sock_release")
int wb_sock_release(struct bpf_sock *sk)
{
	wb_release(sk);
	return 1;
}

/* The peer that the application asked for, if `peer` is the proxy that it got instead. */
static __always_inline void wb_peer(struct bpf_sock_addr *ctx, struct wb_endpoint *peer)
{
	struct bpf_sock *sk = ctx->sk;
	struct wb_socket *s;

	if (!sk)
		return;
	s = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (s && wb_is_stamped(s) && wb_same_endpoint(peer, &s->proxy))
		wb_hop_dst(wb_newest_hop(s), peer);
}

/*
 * The address of a client's end, as it would be without a proxy; and that of a
 * proxy's end, as the proxy would see it behind TPROXY: the one that its client
 * asked for.
 */
static __always_inline void wb_own_name(struct bpf_sock_addr *ctx, struct wb_endpoint *name)
{
	struct bpf_sock *sk = ctx->sk;
	struct wb_socket *s;

	if (!sk)
		return;
	s = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (s && wb_is_stamped(s))
		wb_show_source(ctx, sk, s, name);
	if (!s || s->role != WB_ACCEPTED || !(s->flags & WB_BEHIND_TPROXY) || !s->records.n_hops)
		return;
	wb_note_asker(s);
	wb_hop_dst(wb_newest_hop(s), name);
}

typedef void wb_rename(struct bpf_sock_addr *ctx, struct wb_endpoint *name);

static __always_inline int wb_rename4(struct bpf_sock_addr *ctx, wb_rename *rename)
{
	struct wb_endpoint name = { .port = ctx->user_port };

	name.addr[2] = bpf_htonl(0xffff);
	name.addr[3] = ctx->user_ip4;
	rename(ctx, &name);
	ctx->user_ip4 = name.addr[3];
	ctx->user_port = name.port;
	return 1;
}

static __always_inline int wb_rename6(struct bpf_sock_addr *ctx, wb_rename *rename)
{
	struct wb_endpoint name = { .port = ctx->user_port };

	wb_read_dst6(ctx, &name);
	rename(ctx, &name);
	wb_write_dst6(ctx, &name);
	return 1;
}

SEC("cgroup/getpeername4")
int wb_getpeername4(struct bpf_sock_addr *ctx)
{
	return wb_rename4(ctx, wb_peer);
}

SEC("cgroup/getpeername6")
int wb_getpeername6(struct bpf_sock_addr *ctx)
{
	return wb_rename6(ctx, wb_peer);
}

SEC("cgroup/getsockname4")
int wb_getsockname4(struct bpf_sock_addr *ctx)
{
	return wb_rename4(ctx, wb_own_name);
}

SEC("cgroup/getsockname6")
int wb_getsockname6(struct bpf_sock_addr *ctx)
{
	return wb_rename6(ctx, wb_own_name);
}

SEC("cgroup/recvmsg4")
int wb_recvmsg4(struct bpf_sock_addr *ctx)
{
	return wb_rename4(ctx, wb_receive);
}

SEC("cgroup/recvmsg6")
int wb_recvmsg6(struct bpf_sock_addr *ctx)
{
	return wb_rename6(ctx, wb_receive);
}

SEC("sockops")
int wb_sockops(struct bpf_sock_ops *ctx)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		wb_depart(ctx);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		wb_arrive(ctx);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ctx->args[1] == BPF_TCP_CLOSE)
			wb_close(ctx);
		break;
	}
	return 1;
}

SEC("cgroup/getsockopt")
int wb_getsockopt(struct bpf_sockopt *ctx)
{
	if (ctx->level == SOL_WAYBILL) {
		if (ctx->optname < WAYBILL_REDIRECT_RECORDS || ctx->optname > WAYBILL_REDIRECT_STATE)
			return 1;
		wb_count(WB_QUERIED);
		bpf_set_retval(wb_answer(ctx));
		return 1;
	}
	if (ctx->optname == WB_SO_ORIGINAL_DST && (ctx->level == SOL_IP || ctx->level == SOL_IPV6))
		wb_answer_netfilter(ctx);
	else if (ctx->optlen > (int)page_size)
		ctx->optlen = 0; /* longer than the kernel showed us: keep its own answer */
	return 1;
}

SEC("cgroup/setsockopt")
int wb_setsockopt(struct bpf_sockopt *ctx)
{
	int err;

	if (ctx->level != SOL_WAYBILL || ctx->optname != WAYBILL_REDIRECT_RECORDS) {
		if (ctx->optlen > (int)page_size)
			ctx->optlen = 0; /* longer than the kernel showed us: let it use the caller's own */
		return 1;
	}
	if (ctx->optlen == -1) /* another waybill, of a cgroup inside ours, has taken them */
		return 1;
	err = wb_set_records(ctx);
	if (err)
		return wb_refuse(-err);
	ctx->optlen = -1; /* done: the kernel knows no such option */
	return 1;
}

/* Types that no map names: without this the object's BTF, and so Go, would not have them. */
struct wb_exports {
	struct wb_flow flow;
	struct waybill_origin origin;
	struct wb_outcome outcome;
	struct wb_end end;
	struct wb_links links;
	struct wb_listener listener;
	enum wb_event_kind event_kind;
	enum wb_verdict verdict;
	enum wb_action action;
	enum wb_layer layer;
	enum wb_dimension dimension;
	enum wb_counter counter;
	enum wb_provider_counter provider_counter;
	enum wb_policy_flags policy_flags;
	enum wb_filter_flags filter_flags;
	enum wb_hop_flags hop_flags;
	enum wb_role role;
	enum wb_socket_flags socket_flags;
	enum wb_provider_flags provider_flags;
	enum wb_kinship kinship;
	enum wb_peer_flags peer_flags;
	enum wb_on_down on_down;
	enum wb_source_kind source_kind;
} __attribute__((packed)) * wb_exports __attribute__((unused));
