/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "standin.h"

struct real real;

static HMODULE wine;

static const GUID connect_ex = WSAID_CONNECTEX;
static const GUID recv_msg = WSAID_WSARECVMSG;
static const GUID send_msg = WSAID_WSASENDMSG;

static int fail(int error)
{
	WSASetLastError(error);
	return error ? SOCKET_ERROR : 0;
}

/* carried_by copies what was set on a socket. */
static struct bytes carried_by(SOCKET s)
{
	struct bytes b = { 0 };
	struct socket *k;

	lock_sockets();
	k = socket_of(s, 0);
	if (k && k->carried.size) {
		b = (struct bytes){ k->carried.size, malloc(k->carried.size) };
		memcpy(b.data, k->carried.data, b.size);
	}
	unlock_sockets();
	return b;
}

static const struct sockaddr *classify(SOCKET s, const struct sockaddr *to, struct sockaddr_storage *room)
{
	struct bytes carried = carried_by(s);

	to = redirect(s, to, carried, room);
	free(carried.data);
	return to;
}

/* bind_any gives a socket the port that the callout knows it by. */
static void bind_any(SOCKET s, int family)
{
	struct sockaddr_storage any = { .ss_family = family }, local;
	int size = sizeof(local);

	if (real.getsockname(s, (void *)&local, &size))
		real.bind(s, (void *)&any,
			  family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
}

static BOOL WINAPI connect_by_callout(SOCKET s, const struct sockaddr *to, int size, void *buffer, DWORD n, DWORD *sent,
				      OVERLAPPED *o)
{
	struct sockaddr_storage room;

	return real.ConnectEx(s, classify(s, to, &room), size, buffer, n, sent, o);
}

int WINAPI connect(SOCKET s, const struct sockaddr *to, int size)
{
	struct sockaddr_storage room;

	bind_any(s, to->sa_family);
	return real.connect(s, classify(s, to, &room), size);
}

int WINAPI WSASendTo(SOCKET s, LPWSABUF buffers, DWORD count, LPDWORD n, DWORD flags, const struct sockaddr *to,
		     int size, LPWSAOVERLAPPED o, LPWSAOVERLAPPED_COMPLETION_ROUTINE r)
{
	struct sockaddr_storage room;

	if (to)
		bind_any(s, to->sa_family);
	return real.WSASendTo(s, buffers, count, n, flags, classify(s, to, &room), size, o, r);
}

int WINAPI bind(SOCKET s, const struct sockaddr *a, int size)
{
	int err = real.bind(s, a, size);
	struct socket *k;

	lock_sockets();
	k = err ? NULL : socket_of(s, 1);
	if (k)
		k->bound = 1;
	unlock_sockets();
	return err;
}

SOCKET WINAPI WSASocketW(int family, int type, int protocol, LPWSAPROTOCOL_INFOW info, GROUP g, DWORD flags)
{
	SOCKET s = real.WSASocketW(family, type, protocol, info, g, flags);
	struct socket *k;

	if (s == INVALID_SOCKET || flags & WSA_FLAG_OVERLAPPED)
		return s;
	lock_sockets();
	k = socket_of(s, 1);
	if (k)
		k->synchronous = 1;
	unlock_sockets();
	return s;
}

int WINAPI closesocket(SOCKET s)
{
	cancel_requests(s, NULL);
	cancel_receives(s, NULL);
	forget_socket(s);
	return real.closesocket(s);
}

int WINAPI setsockopt(SOCKET s, int level, int name, const char *value, int size)
{
	struct socket *k;
	int bit = name == OPTION_RECORDS ? 1 : 2;

	if ((level != IPPROTO_IP && level != IPPROTO_IPV6) || (name != OPTION_RECORDS && name != OPTION_CONTEXT))
		return real.setsockopt(s, level, name, value, size);
	if (size != sizeof(DWORD) || socket_type(s) != SOCK_DGRAM)
		return fail(WSAEINVAL);
	lock_sockets();
	k = socket_of(s, 1);
	if (k)
		k->wants = *(const DWORD *)value ? k->wants | bit : k->wants & ~bit;
	unlock_sockets();
	return 0;
}

int WINAPI getsockopt(SOCKET s, int level, int name, char *value, int *size)
{
	uint8_t *blob;
	uint32_t n = 0;
	int err;

	if (level != SOL_SOCKET || name != OPTION_ORIGINAL_DST)
		return real.getsockopt(s, level, name, value, size);
	blob = malloc(MAX_BLOB);
	err = find_records(s, OPTION_ORIGINAL_DST, blob, &n);
	if (!err && n > (uint32_t)*size)
		err = WSAEFAULT;
	if (!err) {
		memcpy(value, blob, n);
		*size = n;
	}
	free(blob);
	return fail(err);
}

int WINAPI WSAGetOverlappedResult(SOCKET s, LPWSAOVERLAPPED o, LPDWORD n, BOOL wait, LPDWORD flags)
{
	DWORD error;

	if (!result_of(o, n, &error))
		return real.WSAGetOverlappedResult(s, o, n, wait, flags);
	*flags = 0;
	WSASetLastError(error);
	return FALSE;
}

/* complete tells of the end of an operation. No completion is posted when the event's lowest bit is set. */
void complete(HANDLE port, ULONG_PTR key, OVERLAPPED *o, DWORD error, DWORD n)
{
	HANDLE event = o->hEvent;

	o->InternalHigh = n;
	o->Internal = error ? ENDED | error : 0;
	if (event)
		SetEvent((HANDLE)((ULONG_PTR)event & ~(ULONG_PTR)1));
	if (port && !((ULONG_PTR)event & 1))
		PostQueuedCompletionStatus(port, n, key, o);
}

/* nt finds a function of ntdll.dll. */
static void *nt(const char *name)
{
	return (void *)GetProcAddress(GetModuleHandleA("ntdll"), name);
}

static ULONG to_error(LONG status)
{
	ULONG(WINAPI * f)(LONG) = nt("RtlNtStatusToDosError");

	return f(status);
}

/* create_port is in the place of CreateIoCompletionPort, does what Wine's does, and knows the ports of sockets. */
static HANDLE WINAPI create_port(HANDLE h, HANDLE port, ULONG_PTR key, DWORD threads)
{
	LONG(WINAPI * create)(HANDLE *, ULONG, void *, ULONG) = nt("NtCreateIoCompletion");
	LONG(WINAPI * set)(HANDLE, void *, void *, ULONG, int) = nt("NtSetInformationFile");
	struct {
		HANDLE port;
		ULONG_PTR key;
	} info = { port, key };
	ULONG_PTR status[2];
	struct socket *k;
	LONG err = 0;

	if (!port)
		err = create(&info.port, 0x1F0003 /* IO_COMPLETION_ALL_ACCESS */, NULL, threads);
	if (!err && h != INVALID_HANDLE_VALUE)
		err = set(h, status, &info, sizeof(info), 30 /* FileCompletionInformation */);
	if (err) {
		SetLastError(to_error(err));
		return NULL;
	}
	if (h != INVALID_HANDLE_VALUE && is_socket((SOCKET)h)) {
		lock_sockets();
		k = socket_of((SOCKET)h, 1);
		if (k) {
			k->port = info.port;
			k->key = key;
		}
		unlock_sockets();
	}
	return info.port;
}

/* cancel_io_ex is in the place of CancelIoEx, and does what Wine's does for all requests but ours. */
static BOOL WINAPI cancel_io_ex(HANDLE h, OVERLAPPED *o)
{
	LONG(WINAPI * cancel)(HANDLE, void *, void *) = nt("NtCancelIoFileEx");
	ULONG_PTR status[2];
	LONG err;

	if (cancel_requests((SOCKET)h, o) || cancel_receives((SOCKET)h, o))
		return TRUE;
	err = cancel(h, o, status);
	if (err)
		SetLastError(to_error(err));
	return !err;
}

/* patch puts a jump to f at the beginning of a function of kernelbase.dll. */
static int patch(const char *name, void *f)
{
	void *at = (void *)GetProcAddress(GetModuleHandleA("kernelbase"), name);
	uint8_t code[12] = { 0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0 }; /* mov rax, f; jmp rax */
	DWORD old;

	memcpy(code + 2, &f, 8);
	if (!at || !VirtualProtect(at, sizeof(code), PAGE_EXECUTE_READWRITE, &old))
		return 0;
	memcpy(at, code, sizeof(code));
	return VirtualProtect(at, sizeof(code), old, &old);
}

/* extension puts our functions before Wine's. */
static int extension(SOCKET s, const GUID *id, void *out, DWORD size, LPDWORD n)
{
	void *f = NULL;
	int err = real.WSAIoctl(s, SIO_GET_EXTENSION_FUNCTION_POINTER, (void *)id, sizeof(*id), &f, sizeof(f), n, NULL,
				NULL);

	if (err || size < sizeof(f))
		return err ? err : fail(WSAEFAULT);
	if (IsEqualGUID(id, &connect_ex)) {
		real.ConnectEx = f;
		f = connect_by_callout;
	} else if (IsEqualGUID(id, &recv_msg)) {
		real.WSARecvMsg = f;
		f = receive_message;
	} else if (IsEqualGUID(id, &send_msg)) {
		f = send_message;
	}
	memcpy(out, &f, sizeof(f));
	return 0;
}

static int arm(SOCKET s, const struct armed *how, DWORD size)
{
	struct armed *a = malloc(size), *old;
	struct socket *k;
	int at = -1;

	memcpy(a, how, size);
	lock_sockets();
	k = socket_of(s, 1);
	old = armed_for(k, how->code);
	for (int i = MAX_ARMED - 1; k && i >= 0; i--)
		if (k->armed[i] == old)
			at = i;
	if (at >= 0)
		k->armed[at] = a;
	unlock_sockets();
	free(old);
	return fail(at < 0 ? WSAENOBUFS : 0);
}

static int own_code(SOCKET s, DWORD code, const void *in, DWORD in_size, void *out, DWORD out_size, LPDWORD n)
{
	struct bytes b;

	*n = 0;
	switch (code) {
	case STANDIN_POLICY:
		set_policy(in);
		return 0;
	case STANDIN_ARM:
		return arm(s, in, in_size);
	case STANDIN_COUNT:
	case STANDIN_PENDING:
		*(uint32_t *)out = code == STANDIN_COUNT ? count_redirects() : pending_requests();
		*n = sizeof(uint32_t);
		return 0;
	case STANDIN_READ:
		b = carried_by(s);
		*n = b.size < out_size ? b.size : out_size;
		if (b.data)
			memcpy(out, b.data, *n);
		free(b.data);
		return 0;
	}
	return fail(WSAEOPNOTSUPP);
}

int WINAPI WSAIoctl(SOCKET s, DWORD code, LPVOID in, DWORD in_size, LPVOID out, DWORD out_size, LPDWORD n,
		    LPWSAOVERLAPPED o, LPWSAOVERLAPPED_COMPLETION_ROUTINE r)
{
	switch (code) {
	case QUERY_RECORDS:
	case QUERY_CONTEXT:
	case SET_RECORDS:
	case QUERY_ENDPOINT:
		return fail(answer_request(s, code, in, in_size, out, out_size, n, o));
	case SIO_GET_EXTENSION_FUNCTION_POINTER:
		return extension(s, in, out, out_size, n);
	case UDP_NETRESET: /* Wine has none, and package net needs it */
		*n = 0;
		return 0;
	}
	if ((code & 0xFFFFF000) == 0x9800F000)
		return own_code(s, code, in, in_size, out, out_size, n);
	return real.WSAIoctl(s, code, in, in_size, out, out_size, n, o, r);
}

#define LOAD(f) (real.f = (void *)GetProcAddress(wine, #f))

BOOL WINAPI DllMain(HINSTANCE dll, DWORD reason, void *reserved)
{
	if (reason != DLL_PROCESS_ATTACH)
		return TRUE;
	wine = LoadLibraryA("ws2_real.dll");
	return wine && LOAD(WSAIoctl) && LOAD(WSAGetOverlappedResult) && LOAD(closesocket) && LOAD(bind) &&
	       LOAD(connect) && LOAD(getsockname) && LOAD(getpeername) && LOAD(getsockopt) && LOAD(setsockopt) &&
	       LOAD(select) && LOAD(WSASocketW) && LOAD(WSASendTo) && patch("CancelIoEx", cancel_io_ex) &&
	       patch("CreateIoCompletionPort", create_port) && open_callout();
}
