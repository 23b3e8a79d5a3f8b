package flow

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// ellipsis stands for what was cut out.
const ellipsis = "…"

// clean makes text that a process chose safe to show: control characters would
// let it move the cursor and write over what others did.
func clean(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) < 0 {
		return s
	}
	quoted := strconv.Quote(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// columns is how many columns of a terminal the clean text s takes.
func columns(s string) int {
	n := 0
	for _, r := range s {
		n += runeColumns(r)
	}
	return n
}

func runeColumns(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case unicode.In(r, unicode.Han, unicode.Hangul, unicode.Hiragana, unicode.Katakana),
		r >= 0x3000 && r < 0x3040, r >= 0xff01 && r < 0xff61, r >= 0x1f300 && r < 0x1fb00:
		return 2
	}
	return 1
}

// cut shortens s to so many columns. Of what has to go, the middle goes: keep
// columns at the end stay.
func cut(s string, width, keep int) string {
	if columns(s) <= width {
		return s
	}
	if width < 1 {
		return ""
	}
	keep = min(keep, width-1)
	runes := []rune(s)
	tail := len(runes)
	for n := 0; tail > 0; tail-- {
		if n += runeColumns(runes[tail-1]); n > keep {
			break
		}
	}
	head := 0
	for n := columns(string(runes[tail:])) + 1; head < tail; head++ {
		if n += runeColumns(runes[head]); n > width {
			break
		}
	}
	return string(runes[:head]) + ellipsis + string(runes[tail:])
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(width-columns(s), 0))
}

// commandLine shows where one argument ends and the next begins.
func commandLine(args []string) string {
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = clean(a)
		if a == "" || strings.ContainsAny(a, " '\"$`\\") {
			words[i] = "'" + strings.ReplaceAll(words[i], "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

// short writes a duration with three digits or so.
func short(d time.Duration) string {
	switch {
	case d < time.Microsecond:
		return fmt.Sprintf("%dns", d.Nanoseconds())
	case d < time.Millisecond:
		return digits(float64(d)/float64(time.Microsecond)) + "µs"
	case d < time.Second:
		return digits(float64(d)/float64(time.Millisecond)) + "ms"
	case d < time.Minute:
		return digits(d.Seconds()) + "s"
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%02dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

// size writes a number of bytes in the units of disks and networks, in which
// a kilobyte is 1,000.
func size(n uint64) string {
	if n < 1000 {
		return fmt.Sprintf("%dB", n)
	}
	value := float64(n)
	unit := -1
	for ; value >= 999.5 && unit < len("kMGTPE")-1; unit++ {
		value /= 1000
	}
	return digits(value) + "kMGTPE"[unit:unit+1] + "B"
}

func digits(x float64) string {
	switch {
	case x < 9.995:
		return fmt.Sprintf("%.2f", x)
	case x < 99.95:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.0f", x)
}

// suffix marks what is not TCP, as port numbers are written: 53/udp.
func (p Protocol) suffix() string {
	if p == "" {
		return ""
	}
	return "/" + clean(string(p))
}

func (p Protocol) endpoint(a netip.AddrPort) string { return endpoint(a) + p.suffix() }

// amount is of bytes, or of what the kernel counts of UDP.
func (p Protocol) amount(n uint64) string {
	if p == UDP {
		if n == 1 {
			return "1 dgram"
		}
		return fmt.Sprintf("%d dgrams", n)
	}
	return size(n)
}

// arrival is what [Hop.Handshake] is the time of.
func (p Protocol) arrival() string {
	if p == UDP {
		return "read after"
	}
	return "handshake"
}

func (p Protocol) verb() string {
	if p == UDP {
		return "sends"
	}
	return "connects"
}

func endpoint(a netip.AddrPort) string {
	if !a.IsValid() {
		return "?"
	}
	return clean(a.String()) // a zone is free text
}
