/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "standin.h"

/* result is what becomes of a request. */
struct result {
	DWORD error;
	DWORD returned;
	uint8_t *data; /* copied to the caller's buffer */
	DWORD size;
};

struct pending {
	SOCKET s;
	OVERLAPPED *o; /* NULL: it is over */
	HANDLE port, wake;
	ULONG_PTR key;
	DWORD delay;
	int deaf;
	void *out;
	struct result r;
	struct pending *next;
};

static struct pending *requests;
static SRWLOCK lock = SRWLOCK_INIT;

/* finish completes a request once. */
static void finish(struct pending *p, DWORD error)
{
	OVERLAPPED *o;

	AcquireSRWLockExclusive(&lock);
	o = p->o;
	p->o = NULL;
	if (o) {
		if (!error && p->r.size)
			memcpy(p->out, p->r.data, p->r.size);
		complete(p->port, p->key, o, error, error ? p->r.returned : p->r.size);
		SetEvent(p->wake);
	}
	ReleaseSRWLockExclusive(&lock);
}

static void unlink_request(struct pending *p)
{
	AcquireSRWLockExclusive(&lock);
	for (struct pending **at = &requests; *at; at = &(*at)->next) {
		if (*at == p) {
			*at = p->next;
			break;
		}
	}
	ReleaseSRWLockExclusive(&lock);
}

static DWORD WINAPI run_request(void *arg)
{
	struct pending *p = arg;

	if (WaitForSingleObject(p->wake, p->delay) == WAIT_TIMEOUT)
		finish(p, p->r.error);
	unlink_request(p);
	CloseHandle(p->wake);
	free(p->r.data);
	free(p);
	return 0;
}

static int begin_pending(SOCKET s, OVERLAPPED *o, const struct socket *k, const struct armed *a, void *out,
			 struct result r)
{
	struct pending *p = calloc(1, sizeof(*p));

	*p = (struct pending){ .s = s, .o = o, .out = out, .r = r };
	p->port = k->port;
	p->key = k->key;
	p->delay = a->delay;
	p->deaf = a->deaf;
	p->wake = CreateEventA(NULL, TRUE, FALSE, NULL);
	o->Internal = PENDING;
	o->InternalHigh = 0;
	AcquireSRWLockExclusive(&lock);
	p->next = requests;
	requests = p;
	ReleaseSRWLockExclusive(&lock);
	CloseHandle(CreateThread(NULL, 0, run_request, p, 0, NULL));
	return WSA_IO_PENDING;
}

/* cancel_requests aborts one request of a socket, or all. */
BOOL cancel_requests(SOCKET s, OVERLAPPED *o)
{
	struct pending *p;
	BOOL found = FALSE;

	for (;;) {
		AcquireSRWLockExclusive(&lock);
		for (p = requests; p; p = p->next)
			if (p->s == s && p->o && (!o || (p->o == o && !p->deaf)))
				break;
		ReleaseSRWLockExclusive(&lock);
		if (!p)
			return found;
		finish(p, WSA_OPERATION_ABORTED);
		found = TRUE;
	}
}

uint32_t pending_requests(void)
{
	uint32_t n = 0;

	AcquireSRWLockExclusive(&lock);
	for (struct pending *p = requests; p; p = p->next)
		n += p->o != NULL;
	ReleaseSRWLockExclusive(&lock);
	return n;
}

/* result_of reports whether the status of a request is one of ours. */
int result_of(OVERLAPPED *o, DWORD *n, DWORD *error)
{
	if ((o->Internal & 0xffff0000u) != ENDED)
		return 0;
	*n = (DWORD)o->InternalHigh;
	*error = o->Internal & 0xffff;
	return 1;
}

static DWORD set_records(SOCKET s, const void *in, DWORD size)
{
	struct socket *k;
	DWORD error = 0;

	if (!in || !size)
		return WSAEFAULT;
	if (socket_type(s) != SOCK_STREAM || !valid_records(in, size))
		return WSAEINVAL;
	lock_sockets();
	k = socket_of(s, 1);
	if (!k) {
		error = WSAENOBUFS;
	} else if (k->bound) {
		error = WSAEINVAL; /* "prior to binding" */
	} else {
		free(k->carried.data);
		k->carried = (struct bytes){ size, malloc(size) };
		memcpy(k->carried.data, in, size);
	}
	unlock_sockets();
	return error;
}

static DWORD usual(SOCKET s, DWORD code, const void *in, DWORD in_size, struct result *r)
{
	uint32_t size = 0;
	DWORD error;

	switch (code) {
	case SET_RECORDS:
		r->returned = in_size + 4; /* as is seen in the field: not the size, not zero */
		return set_records(s, in, in_size);
	case QUERY_ENDPOINT:
		r->size = sizeof(uint64_t);
		r->data = calloc(1, r->size);
		*(uint64_t *)r->data = 0xE0000000u + s;
		return 0;
	}
	r->data = malloc(MAX_BLOB);
	error = find_records(s, code, r->data, &size);
	r->size = size;
	return error;
}

/* fit is what is said of a buffer that is too short. */
static void fit(struct result *r, const struct armed *a, DWORD code, DWORD room)
{
	r->returned = r->size;
	if (r->size <= room)
		return;
	r->error = a && a->short_error ? a->short_error : ERROR_INSUFFICIENT_BUFFER;
	if (code == QUERY_ENDPOINT)
		r->error = WSAEINVAL;
	if ((a && a->short_returns == SHORT_ZERO) || code == QUERY_ENDPOINT)
		r->returned = 0;
	else if (a && a->short_returns == SHORT_PART)
		r->returned = room;
	r->size = 0;
}

static void answer_armed(const struct armed *a, struct result *r)
{
	if (a->error) {
		r->error = a->error;
		r->returned = a->returned;
		r->size = 0;
	} else if (a->size) {
		r->error = 0;
		r->size = a->size;
		r->data = realloc(r->data, a->size > MAX_BLOB ? a->size : MAX_BLOB);
		memcpy(r->data, a->answer, a->size);
	}
}

/* answer_request returns 0 or the error that WSAIoctl fails with. */
int answer_request(SOCKET s, DWORD code, const void *in, DWORD in_size, void *out, DWORD out_size, DWORD *returned,
		   OVERLAPPED *o)
{
	struct result r = { 0 };
	struct armed *a, armed = { 0 };
	struct socket known = { 0 };
	struct socket *k;

	if (!is_socket(s))
		return WSAENOTSOCK;
	if (!returned)
		return WSAEFAULT;
	*returned = 0;
	r.error = usual(s, code, in, in_size, &r);
	lock_sockets();
	k = socket_of(s, 0);
	a = armed_for(k, code);
	if (a) {
		armed = *a;
		answer_armed(a, &r);
	}
	if (k)
		known = *k;
	if (known.synchronous)
		o = NULL; /* which Winsock ignores then */
	unlock_sockets();
	if (r.error)
		r.size = 0;
	else if (code != SET_RECORDS)
		fit(&r, a ? &armed : NULL, code, out_size);
	if (o && armed.pending)
		return begin_pending(s, o, &known, &armed, out, r);
	*returned = r.returned;
	if (!r.error && r.size)
		memcpy(out, r.data, r.size);
	if (o) {
		o->Internal = r.error ? ENDED | r.error : 0;
		o->InternalHigh = r.returned;
		if (o->hEvent && !r.error)
			SetEvent((HANDLE)((ULONG_PTR)o->hEvent & ~(ULONG_PTR)1));
	}
	free(r.data);
	return r.error;
}
