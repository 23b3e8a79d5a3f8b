/* SPDX-License-Identifier: MIT */
/*
 * The callout: it stands for a driver with several providers, each of which has
 * a redirect handle of its own. What is on its way to a proxy is in memory that
 * all processes share, by the port that it comes from.
 */
#include <string.h>

#include "standin.h"

enum {
	MAX_FLIGHTS = 64,
	MAGIC = 0x52504657
};

struct flight {
	uint16_t from; /* the port; 0: none */
	uint8_t udp;
	uint8_t first; /* of UDP: no datagram of it has been received */
	uint32_t size; /* of the records */
	struct sockaddr_storage context[2];
	uint8_t records[MAX_BLOB];
};

static struct shared {
	struct policy policy;
	uint32_t redirects;
	uint32_t next;
	struct flight flights[MAX_FLIGHTS];
} *shared;

static HANDLE mutex;

int open_callout(void)
{
	HANDLE h =
		CreateFileMappingA(INVALID_HANDLE_VALUE, NULL, PAGE_READWRITE, 0, sizeof(*shared), "waybill-standin");

	shared = h ? MapViewOfFile(h, FILE_MAP_ALL_ACCESS, 0, 0, sizeof(*shared)) : NULL;
	mutex = CreateMutexA(NULL, FALSE, "waybill-standin-lock");
	return shared && mutex;
}

static void lock_shared(void)
{
	WaitForSingleObject(mutex, INFINITE);
}

static void unlock_shared(void)
{
	ReleaseMutex(mutex);
}

void set_policy(const struct policy *p)
{
	lock_shared();
	memset(shared, 0, sizeof(*shared));
	shared->policy = *p;
	unlock_shared();
}

uint32_t count_redirects(void)
{
	uint32_t n;

	lock_shared();
	n = shared->redirects;
	unlock_shared();
	return n;
}

static uint32_t sum_of(const struct records *r)
{
	const uint8_t *b = (const uint8_t *)&r->hops;
	uint32_t sum = 0;

	for (uint32_t i = offsetof(struct records, hops); i < r->size; i++)
		sum = sum * 31 + *b++;
	return sum;
}

int valid_records(const void *blob, uint32_t size)
{
	const struct records *r = blob;

	return size >= sizeof(*r) && r->magic == MAGIC && r->size == size && r->hops <= MAX_PROVIDERS &&
	       r->sum == sum_of(r);
}

static int has_redirected(const struct records *r, uint64_t handle)
{
	for (uint32_t i = 0; r && i < r->hops; i++)
		if (r->hop[i].handle == handle)
			return 1;
	return 0;
}

static uint16_t port_of(const struct sockaddr *a)
{
	return ntohs(((const struct sockaddr_in *)a)->sin_port); /* where it is in sockaddr_in6 */
}

static void append_hop(struct flight *f, const struct records *carried, uint64_t handle,
		       const struct sockaddr_storage *dst)
{
	struct records *r = (struct records *)f->records;

	memset(f->records, 0, sizeof(f->records));
	r->magic = MAGIC;
	if (carried)
		memcpy(r->hop, carried->hop, carried->hops * sizeof(struct hop));
	r->hops = carried ? carried->hops : 0;
	r->hop[r->hops].handle = handle;
	r->hop[r->hops++].dst = *dst;
	r->size = f->size = sizeof(*r) + r->hops * sizeof(struct hop) + shared->policy.padding;
	r->sum = sum_of(r);
}

static struct flight *flight_from(uint16_t port, int udp)
{
	for (int i = 0; i < MAX_FLIGHTS; i++)
		if (shared->flights[i].from == port && shared->flights[i].udp == udp)
			return &shared->flights[i];
	return NULL;
}

/* to_loopback is where a proxy listens, in the family of the socket. */
static void to_loopback(struct sockaddr_storage *a, uint16_t port)
{
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)a;
	struct sockaddr_in *in = (struct sockaddr_in *)a;
	int mapped = a->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);

	in->sin_port = htons(port);
	if (a->ss_family == AF_INET)
		in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	else if (mapped)
		memcpy(&in6->sin6_addr.s6_addr[12], &(uint32_t){ htonl(INADDR_LOOPBACK) }, 4);
	else
		in6->sin6_addr = (struct in6_addr){ { .Byte = { [15] = 1 } } };
}

/*
 * redirect is the callout's classify function. It returns where the connection,
 * or the datagram, goes. Each handle redirects a flow at most once.
 */
const struct sockaddr *redirect(SOCKET s, const struct sockaddr *to, struct bytes carried,
				struct sockaddr_storage *room)
{
	struct sockaddr_storage local = { 0 };
	const struct records *records = carried.size ? (const void *)carried.data : NULL;
	int size = sizeof(local), udp = socket_type(s) == SOCK_DGRAM, chosen = -1;
	struct flight *f;

	if (!to || (to->sa_family != AF_INET && to->sa_family != AF_INET6) ||
	    real.getsockname(s, (void *)&local, &size))
		return to;
	memset(room, 0, sizeof(*room));
	memcpy(room, to, to->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
	lock_shared();
	f = flight_from(port_of((void *)&local), udp);
	for (int i = shared->policy.providers - 1; i >= 0; i--)
		if (port_of(to) == shared->policy.port && !has_redirected(records, i + 1))
			chosen = i;
	if (chosen < 0) {
		if (f)
			f->from = 0; /* what was on its way from this port before is not this */
		unlock_shared();
		return to;
	}
	if (!f || !udp || memcmp(&f->context[0], room, sizeof(*room))) {
		if (!f)
			f = &shared->flights[shared->next++ % MAX_FLIGHTS];
		append_hop(f, records, chosen + 1, room);
		f->context[0] = *room;
		f->context[1] = local;
		f->udp = udp;
		f->first = 1;
		f->from = port_of((void *)&local);
		shared->redirects++;
	}
	to_loopback(room, shared->policy.proxies[chosen]);
	unlock_shared();
	return (const struct sockaddr *)room;
}

static int answer(const struct flight *f, DWORD code, uint8_t *out, uint32_t *size)
{
	if (code == OPTION_ORIGINAL_DST && !shared->policy.plain)
		return WSAENOPROTOOPT;
	if (!f)
		return WSAEINVAL; /* as STATUS_NOT_FOUND is said to surface */
	switch (code) {
	case QUERY_RECORDS:
		*size = f->size;
		memcpy(out, f->records, *size);
		return 0;
	case QUERY_CONTEXT:
		if (shared->policy.plain)
			return WSAEINVAL;
		*size = sizeof(f->context);
		memcpy(out, f->context, *size);
		return 0;
	case OPTION_ORIGINAL_DST:
		*size = sizeof(f->context[0]);
		memcpy(out, &f->context[0], *size);
		return 0;
	}
	return WSAEINVAL;
}

/* find_records answers for an accepted socket. out has MAX_BLOB bytes. */
int find_records(SOCKET s, DWORD code, uint8_t *out, uint32_t *size)
{
	struct sockaddr_storage peer;
	int n = sizeof(peer), err;

	if (real.getpeername(s, (void *)&peer, &n))
		return WSAENOTCONN;
	lock_shared();
	err = answer(flight_from(port_of((void *)&peer), 0), code, out, size);
	unlock_shared();
	return err;
}

/* find_datagram_records answers for the first datagram of a flow alone. */
int find_datagram_records(const struct sockaddr *from, DWORD code, uint8_t *out, uint32_t *size, int *first)
{
	struct flight *f;
	int err;

	lock_shared();
	f = flight_from(port_of(from), 1);
	*first = f && f->first;
	err = *first ? answer(f, code, out, size) : WSAEINVAL;
	if (f && code == QUERY_CONTEXT) /* which is asked for last */
		f->first = 0;
	unlock_shared();
	return err;
}
