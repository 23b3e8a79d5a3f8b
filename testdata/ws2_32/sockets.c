/* SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "standin.h"

enum {
	MAX_SOCKETS = 1024
};

static struct socket sockets[MAX_SOCKETS];
static SRWLOCK lock = SRWLOCK_INIT;

void lock_sockets(void)
{
	AcquireSRWLockExclusive(&lock);
}

void unlock_sockets(void)
{
	ReleaseSRWLockExclusive(&lock);
}

struct socket *socket_of(SOCKET s, int make)
{
	struct socket *empty = NULL;

	for (int i = 0; i < MAX_SOCKETS; i++) {
		if (sockets[i].s == s)
			return &sockets[i];
		if (!sockets[i].s && !empty)
			empty = &sockets[i];
	}
	if (!make || !empty)
		return NULL;
	empty->s = s;
	return empty;
}

void forget_socket(SOCKET s)
{
	struct socket *k;

	lock_sockets();
	k = socket_of(s, 0);
	if (k) {
		free(k->carried.data);
		for (int i = 0; i < MAX_ARMED; i++)
			free(k->armed[i]);
		*k = (struct socket){ 0 };
	}
	unlock_sockets();
}

struct armed *armed_for(struct socket *k, DWORD code)
{
	for (int i = 0; k && i < MAX_ARMED; i++)
		if (k->armed[i] && k->armed[i]->code == code)
			return k->armed[i];
	return NULL;
}

int socket_type(SOCKET s)
{
	int type = 0, size = sizeof(type);

	return real.getsockopt(s, SOL_SOCKET, SO_TYPE, (char *)&type, &size) ? 0 : type;
}

int is_socket(SOCKET s)
{
	return socket_type(s) != 0;
}
