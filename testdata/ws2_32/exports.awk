# Makes a .def file of objdump's list of the exports of Wine's ws2_32.dll: what
# the stand-in does not define goes on to ws2_real.dll, with the same ordinals.
BEGIN {
	split("WSAIoctl WSAGetOverlappedResult WSASendTo WSASocketW closesocket bind connect getsockopt setsockopt", own)
	for (i in own)
		defined[own[i]] = 1
	print "EXPORTS"
}
/^Export Address Table -- Ordinal Base/ { base = $NF }
/^\[Ordinal\/Name Pointer\] Table/ { table = 1; next }
/^$/ { table = 0 }
table {
	gsub(/[][]/, " ")
	name = $NF
	print name (name in defined ? "" : " = ws2_real." name) " @" $1 + base
}
