package catalog

import (
	"strings"
	"time"
)

// id checks an id that stands at a path.
func (p *problems) id(path, id string) {
	if err := ValidID(id); err != nil {
		p.add(Invalid, path, "%v", err)
	}
}

// ids checks a list of ids, which may be very long.
func (p *problems) ids(path string, ids []string) {
	for i, id := range ids {
		if ValidID(id) != nil {
			p.id(place(path, i), id)
		}
	}
}

// duration checks a duration if there is one, and gives its value.
func (p *problems) duration(path string, d *Duration) time.Duration {
	if d == nil {
		return 0
	}
	v, err := d.Parse()
	if err != nil {
		p.add(Invalid, path, "%v", err)
	}
	return v
}

// notBlank checks a text if there is one.
func (p *problems) notBlank(path string, s *string) {
	if s != nil && strings.TrimSpace(*s) == "" {
		p.add(Invalid, path, "must not be blank")
	}
}

// noZero refuses what no operating system can hand to a process.
func (p *problems) noZero(path, s string) {
	if strings.ContainsRune(s, 0) {
		p.add(Invalid, path, "must not contain a zero byte")
	}
}

// bounds checks a span of time at a path, from inclusive, until exclusive; either may be empty.
func (p *problems) bounds(path, from, until string) {
	bound := func(name, text string) time.Time {
		t, err := Bound(text, time.UTC)
		if err != nil {
			p.add(Invalid, join(path, name), "%v", err)
		}
		return t
	}
	first, last := bound("from", from), bound("until", until)
	if !first.IsZero() && !last.IsZero() && !first.Before(last) {
		p.add(Invalid, path, "from must be before until")
	}
}
