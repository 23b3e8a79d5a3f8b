/* SPDX-License-Identifier: MIT */
/* The one function of bcryptprimitives.dll that Go needs, and Wine 8 does not have. */
#include <windows.h>

BOOLEAN WINAPI SystemFunction036(void *buffer, ULONG size);

__declspec(dllexport) BOOL WINAPI ProcessPrng(BYTE *buffer, SIZE_T size)
{
	return SystemFunction036(buffer, (ULONG)size);
}

BOOL WINAPI DllMain(HINSTANCE dll, DWORD reason, void *reserved)
{
	return TRUE;
}
