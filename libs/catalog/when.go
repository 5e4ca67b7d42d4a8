package catalog

import (
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// Words of a Cadence.
const (
	Once           = "once"
	OncePerVersion = "once_per_version"
)

// MarshalJSON writes the form that operators write: a word, or {"every": duration}.
func (c Cadence) MarshalJSON() ([]byte, error) {
	if c.Word != "" {
		return json.Marshal(c.Word)
	}
	return json.Marshal(every{c.Every})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (c *Cadence) UnmarshalJSON(text []byte) error { return decodeLeniently(text, c) }

// every is the long form of a cadence.
type every struct {
	Every Duration `json:"every" is:"required"`
}

func (c *Cadence) decode(d *decoder, n *node, path string) {
	*c = Cadence{}
	switch {
	case n.kind == objectNode:
		var form every
		d.into(n, &form, path)
		c.Every = form.Every
	case n.kind == textNode && (d.lenient || n.text == Once || n.text == OncePerVersion):
		c.Word = n.text
	default:
		d.add(Shape, path, "expected once, once_per_version or a map with every, got %s", n)
	}
}

// Every is the interval of a per_pc or per_target schedule that has one.
func (s *Schedule) Every() (time.Duration, bool) {
	for _, c := range []*Cadence{s.When.PerPC, s.When.PerTarget} {
		if c != nil && c.Word == "" {
			d, err := c.Every.Parse()
			return d, err == nil
		}
	}
	return 0, false
}

// WhenText is the form of the schedule as people read it: "per_pc every 6h", "at 02:30 [mon-fri]", "cron 0 4 * * *".
func (s *Schedule) WhenText() string {
	cadence := func(name string, c *Cadence) string {
		if c.Word != "" {
			return name + " " + c.Word
		}
		return name + " every " + string(c.Every)
	}
	switch w := s.When; {
	case w.PerPC != nil:
		return cadence("per_pc", w.PerPC)
	case w.PerTarget != nil:
		return cadence("per_target", w.PerTarget)
	case w.Calendar != nil && len(w.Calendar.Days) > 0:
		return "at " + w.Calendar.At + " [" + strings.Join(w.Calendar.Days, ",") + "]"
	case w.Calendar != nil:
		return "at " + w.Calendar.At
	case w.Cron != "":
		return "cron " + w.Cron
	}
	return "never"
}
