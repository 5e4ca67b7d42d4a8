package catalog

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

func (m *Manifest) check(p *problems) {
	p.id("id", m.ID)
	m.Execute.check(p)
	if m.Emit != nil && (m.Inventory != nil || m.Check != nil) {
		p.add(Invalid, "emit", "excludes inventory and check: stdout is either events or one document")
	}
	if m.Inventory != nil {
		m.Inventory.check(p)
	}
	if m.Check != nil {
		m.Check.check(p)
	}
	if m.Client != nil {
		m.Client.check(p)
	}
	m.Staleness.check(p)
	for i, tag := range m.Tags {
		p.notBlank(place("tags", i), &tag)
	}
	if doc, err := m.Document(); err != nil {
		p.add(Invalid, "", "%v", err)
	} else if len(doc) > MaxManifest {
		p.add(Invalid, "", "%d bytes as stored are more than the limit of %d", len(doc), MaxManifest)
	}
}

func (e *Execute) check(p *problems) {
	set := 0
	for _, is := range []bool{e.Script != "", e.ScriptFile != nil, e.ScriptObject != nil} {
		if is {
			set++
		}
	}
	switch {
	case set == 0:
		p.add(Invalid, "execute", "one of script, script_file, script_object must be set")
	case set > 1:
		p.add(Invalid, "execute", "only one of script, script_file, script_object may be set")
	}
	if len(e.Script) > MaxScript {
		p.add(Invalid, "execute.script", "%d bytes are more than the limit of %d", len(e.Script), MaxScript)
	}
	p.notBlank("execute.script_file", e.ScriptFile)
	if e.ScriptObject != nil && !validObject(*e.ScriptObject) {
		p.add(Invalid, "execute.script_object", "expected <name>/<version> in ASCII without quotes and backslashes, got %q", *e.ScriptObject)
	}
	p.duration("execute.timeout", &e.Timeout)
	for _, name := range slices.Sorted(maps.Keys(e.Env)) {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			p.add(Invalid, join("execute.env", name), "can't be the name of a variable")
		}
		p.noZero(join("execute.env", name), e.Env[name])
	}
	for i, arg := range e.Args {
		p.noZero(place("execute.args", i), arg)
	}
	p.noZero("execute.cwd", e.Cwd)
	for i, code := range e.SuccessCodes {
		if code < math.MinInt32 || code > math.MaxInt32 {
			p.add(Invalid, place("execute.success_codes", i), "%d is no exit code", code)
		}
	}
	if e.SuccessCodes != nil && len(e.SuccessCodes) == 0 {
		p.add(Invalid, "execute.success_codes", "must not be empty: nothing would be a success")
	}
	e.checkParams(p)
}

// validObject checks "<name>/<version>".
func validObject(key string) bool {
	name, version, _ := strings.Cut(key, "/")
	return ValidObjectPart(name) && ValidObjectPart(version)
}

// ValidObjectPart checks the name or the version of a script object: printable ASCII without slashes, quotes and
// backslashes, not empty.
func ValidObjectPart(s string) bool {
	odd := func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune(`/"\`, r) }
	return s != "" && !strings.ContainsFunc(s, odd)
}

// isIdentifier is the form of table and column names, and of parameters, which become environment variables.
func isIdentifier(s string) bool {
	for i, c := range s {
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return 0 < len(s) && len(s) <= 64
}

func (v *Inventory) check(p *problems) {
	for i := range v.Explode {
		v.Explode[i].check(p, place("inventory.explode", i))
	}
}

// check refuses at once what would only be found out when the table is made. The endpoint and the job are columns of
// every table without being declared.
func (x *Explode) check(p *problems, path string) {
	if !isIdentifier(x.Table) {
		p.add(Invalid, path+".table", "%q can't be the name of a table: expected [A-Za-z_][A-Za-z0-9_]{0,63}", x.Table)
	}
	columns := []string{"pc_id", "job_id"}
	for i, c := range x.Columns {
		at := place(path+".columns", i) + ".field"
		same := func(other string) bool { return strings.EqualFold(other, c.Field) }
		if !isIdentifier(c.Field) {
			p.add(Invalid, at, "%q can't be the name of a column: expected [A-Za-z_][A-Za-z0-9_]{0,63}", c.Field)
		} else if slices.ContainsFunc(columns[2:], same) {
			p.add(Invalid, at, "%q names a column twice", c.Field)
		}
		columns = append(columns, c.Field)
	}
	if len(x.PrimaryKey) == 0 {
		p.add(Invalid, path+".primary_key", "must not be empty")
	}
	for i, key := range x.PrimaryKey {
		if !slices.Contains(columns, key) {
			p.add(Invalid, place(path+".primary_key", i), "%q is none of the columns", key)
		}
	}
}

func (c *Check) check(p *problems) {
	p.notBlank("check.name", &c.Name)
	p.notBlank("check.status_field", &c.StatusField)
	p.notBlank("check.detail_field", &c.DetailField)
	p.notBlank("check.troubleshoot", c.Troubleshoot)
}

func (c *Client) check(p *problems) {
	p.notBlank("client.name", &c.Name)
	p.notBlank("client.description", c.Description)
	p.notBlank("client.icon", c.Icon)
}

func (s *Staleness) check(p *problems) {
	switch {
	case s.Mode == Strict && s.MaxCacheAge == nil:
		p.add(Invalid, "staleness.max_cache_age", "missing: the mode strict needs it")
	case s.Mode != Strict && s.MaxCacheAge != nil:
		p.add(Invalid, "staleness.max_cache_age", "belongs to the mode strict alone")
	}
	p.duration("staleness.max_cache_age", s.MaxCacheAge)
}

// Inline puts the text of script_file in its place, as the CLI does before it uploads; readFile gets the path as written.
// Without script_file it does nothing. The manifest is checked again afterwards.
func (m *Manifest) Inline(readFile func(path string) ([]byte, error)) error {
	if m.Execute.ScriptFile == nil {
		return nil
	}
	path := *m.Execute.ScriptFile
	text, err := readFile(path)
	if err != nil {
		return fmt.Errorf("read execute.script_file %s: %w", path, err)
	}
	switch {
	case len(text) == 0:
		return refuse(Invalid, 0, "execute.script_file", "%s is empty", path)
	case !utf8.Valid(text):
		return refuse(Invalid, 0, "execute.script_file", "%s is not UTF-8", path)
	}
	m.Execute.Script, m.Execute.ScriptFile = string(text), nil
	return m.Validate()
}
