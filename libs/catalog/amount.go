package catalog

import (
	"fmt"
	"strconv"
	"strings"
)

// Amount is a number of endpoints: a count (5), or a share of the target ("10%") when Percent is not 0.
type Amount struct {
	Count   int
	Percent int
}

// String gives the form that operators write.
func (a Amount) String() string {
	if a.Percent != 0 {
		return fmt.Sprintf("%d%%", a.Percent)
	}
	return strconv.Itoa(a.Count)
}

// MarshalJSON writes the form that operators write.
func (a Amount) MarshalJSON() ([]byte, error) {
	if a.Percent != 0 {
		return []byte(`"` + a.String() + `"`), nil
	}
	return []byte(a.String()), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (a *Amount) UnmarshalJSON(text []byte) error { return decodeLeniently(text, a) }

func (a *Amount) decode(d *decoder, n *node, path string) {
	text, share := strings.CutSuffix(n.text, "%")
	value, err := strconv.Atoi(text)
	switch {
	case n.kind == numberNode && !share && err == nil:
		*a = Amount{Count: value}
	case n.kind == textNode && share && err == nil && value > 0:
		*a = Amount{Percent: value}
	default:
		d.add(Shape, path, "expected a count like 5 or a share like 10%%, got %s", n)
	}
}
