/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * The source address that the kernel would have chosen, had the connection gone
 * where its program wanted. Programs take it for their own, and resolvers sort
 * what they have found by it.
 */
#ifndef WB_SOURCE_H
#define WB_SOURCE_H

#include "kernel.h"
#include "records.h"

/*
 * Whether only the destination decides about the way: the program has chosen no
 * address, device or mark. Being connected gives a socket an address, too, but
 * no lock on it: as with inet_reset_saddr(), that tells them apart.
 */
static __noinline bool wb_follows_routes(struct bpf_sock *sk)
{
	struct bpf_sock *held = sk;
	struct sock *address = NULL;

	if (sk->bound_dev_if || sk->mark)
		return false;
	/* The address as a number: see wb_datagrams_are_of(). */
	bpf_probe_read_kernel(&address, sizeof(address), &held);
	return !(BPF_CORE_READ_BITFIELD_PROBED(address, sk_userlocks) & WB_SOCK_BINDADDR_LOCK);
}

/* What is known of the way to dst; NULL: nothing, or it is out of date. */
static __always_inline const struct wb_source *wb_find_source(__u64 netns_cookie, const struct wb_endpoint *dst)
{
	struct wb_source_key key = { .prefix_bits = WB_SOURCE_FIXED_BITS + 128, .netns_cookie = netns_cookie };
	__u64 *until = bpf_map_lookup_elem(&sources_until, &netns_cookie);

	if (!until || *until < bpf_ktime_get_boot_ns())
		return NULL;
	__builtin_memcpy(key.addr, dst->addr, sizeof(key.addr));
	return bpf_map_lookup_elem(&sources, &key);
}

/* What connect() would end with for want of a route; 0: it would not. A global function, as wb_decide() is. */
__noinline int wb_route_error(struct bpf_sock_addr *ctx, const struct wb_endpoint *dst)
{
	const struct wb_source *source;
	struct bpf_sock *sk = ctx->sk;

	if (!dst || !sk || !wb_follows_routes(sk))
		return 0;
	source = wb_find_source(bpf_get_netns_cookie(ctx), dst);
	return source && source->kind == WB_SOURCE_UNREACHABLE ? source->error : 0;
}

/* Whether another program, of a cgroup inside ours, has renamed the socket. Each word is read as in wb_tuple(). */
static __always_inline bool wb_is_renamed(struct bpf_sock *sk, const struct wb_endpoint *name)
{
	volatile struct bpf_sock *v = sk;
	__be32 ip4 = v->src_ip4, last = v->src_ip6[3];

	if (v->family == AF_INET)
		last = ip4;
	return name->addr[3] != last;
}

/* The name of a socket that was sent to a proxy: with the address that it would have. */
static __always_inline void wb_show_source(struct bpf_sock_addr *ctx, struct bpf_sock *sk, const struct wb_socket *s,
					   struct wb_endpoint *name)
{
	const struct wb_source *source;
	struct wb_endpoint dst;

	/* Of UDP that has been disconnected the kernel tells no hook. */
	if (sk->state == BPF_TCP_CLOSE || wb_is_renamed(sk, name) || !wb_follows_routes(sk))
		return;
	wb_hop_dst(wb_newest_hop(s), &dst);
	source = wb_find_source(bpf_get_netns_cookie(ctx), &dst);
	if (!source)
		return;
	if (source->kind == WB_SOURCE_ADDRESS)
		__builtin_memcpy(name->addr, source->addr, sizeof(name->addr));
	else if (source->kind == WB_SOURCE_DESTINATION)
		__builtin_memcpy(name->addr, dst.addr, sizeof(name->addr));
}

#endif /* WB_SOURCE_H */
