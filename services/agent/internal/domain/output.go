package domain

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"kanade/libs/events"
)

// CutMark stands where bytes of an output are left out. It is at most MaxCutMark bytes long.
func CutMark(left int64) string { return fmt.Sprintf("\n[... %d bytes left out ...]\n", left) }

// MaxCutMark bounds CutMark, for whoever reserves room for it.
const MaxCutMark = 64

// partLimit is the most that the head and the tail of a cut text may be, in bytes.
const partLimit = (events.MaxInlineOutput - MaxCutMark) / 2

// Text is what an event carries of an output of total bytes: all of it if it fits, else its head and tail with the cut
// marked. Head is the first events.MaxInlineOutput bytes of the output, tail the last ones; either may be shorter when
// the output is. Bytes that are no UTF-8 become U+FFFD, so the text may be cut although the output would fit.
func Text(head, tail []byte, total int64) (text string, truncated bool) {
	if total <= int64(len(head)) {
		whole := valid(head)
		if len(whole) <= events.MaxInlineOutput {
			return whole, false
		}
		tail = head
	}
	h, t := cutEnd(valid(head), partLimit), cutStart(valid(tail), partLimit)
	return h + CutMark(max(0, total-int64(len(h))-int64(len(t)))) + t, true
}

func valid(b []byte) string { return strings.ToValidUTF8(string(b), string(utf8.RuneError)) }

// cutEnd keeps at most n bytes of the beginning, whole characters only.
func cutEnd(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// cutStart keeps at most n bytes of the end, whole characters only.
func cutStart(s string, n int) string {
	i := max(0, len(s)-n)
	for i < len(s) && !utf8.RuneStart(s[i]) {
		i++
	}
	return s[i:]
}
