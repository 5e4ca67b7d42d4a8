package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"
)

// refusal demands that whatever is refused is refused with problems.
func refusal(t *testing.T, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || len(e.Problems) == 0 || e.Kind == 0 || e.Error() == "" {
		t.Fatalf("refused without a problem: %#v", err)
	}
}

func FuzzParseManifest(f *testing.F) {
	for _, seed := range []string{
		minJob,
		head + "execute: {shell: cmd, script_object: a/b, timeout: 10s, env: {a: 1.10}, args: [a], success_codes: [0, 1], params: {a: {type: [1, null]}}}\n",
		minJob + "inventory: {display: [{field: a, label: b}], explode: [{field: a, table: t, primary_key: [b], columns: [{field: b}]}]}\n",
		"a: &a [1]\nb: *a\n? c\n: d\n", "a: |+2\n   x\n", "a: \"\\uD800\"\n", "%YAML 1.2\n---\na\n", "!!str a: {b: 'c''d'}\n", "a: b: c\n", "- - ?\n",
		`{"id":"a","version":"1","execute":{"shell":"sh","script":"x","timeout":"1s"}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		for _, language := range []SourceType{YAML, JSON} {
			m, err := ParseManifest(src, language)
			if err != nil {
				refusal(t, err)
				continue
			}
			doc, err := m.Document()
			if err != nil {
				t.Fatal(err)
			}
			again, err := ParseManifest(doc, JSON)
			if err != nil {
				t.Fatalf("%s: %v", doc, err)
			}
			if same, _ := again.Document(); !bytes.Equal(doc, same) {
				t.Fatalf("%s became %s", doc, same)
			}
			_ = m.Unsupported()
		}
	})
}

func FuzzParseSchedule(f *testing.F) {
	for _, seed := range []string{
		scheduled + everyone + "when: {calendar: {at: '02:30', days: [mon-fri, 'tue#2', friL]}}\ntz: Europe/Berlin\n",
		scheduled + everyone + "when: {cron: '*/15 0-7/2 L,15W * THU#2'}\n",
		scheduled + everyone + "when: {cron: '0 0 30 2 *'}\n",
		scheduled + "rollout: {waves: [{group: a, delay: 1s}]}\nwhen: {per_pc: {every: 6h}}\nactive: {from: 2026-01-01}\n",
		`{"id":"s","job_id":"j","target":{"all":true},"when":{"per_target":"once"}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		for _, language := range []SourceType{YAML, JSON} {
			s, err := ParseSchedule(src, language)
			if err != nil {
				refusal(t, err)
				continue
			}
			doc, err := s.Document()
			if err != nil {
				t.Fatal(err)
			}
			again, err := ParseSchedule(doc, JSON)
			if err != nil {
				t.Fatalf("%s: %v", doc, err)
			}
			if same, _ := again.Document(); !bytes.Equal(doc, same) {
				t.Fatalf("%s became %s", doc, same)
			}
			_ = s.Unsupported()
			after := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			for _, due := range s.Between(after, after.AddDate(1, 0, 0), time.UTC, 10) {
				if !due.After(after) {
					t.Fatalf("%s is due at %s after %s", doc, due, after)
				}
				after = due
			}
		}
	})
}

func FuzzParsePlan(f *testing.F) {
	for _, seed := range []string{
		`{"target":{"groups":["b"],"pcs":["a/1"],"all":true},"jitter":"5m","deadline_at":"2026-01-31T08:00:00Z"}`,
		`{"rollout":{"waves":[{"percent":10,"after":"previous"},{"count":1,"pause":true}]},"max_failures":"10%","params":{"a":[1e400]}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := ParsePlan(body)
		if err != nil {
			refusal(t, err)
			return
		}
		doc, err := p.Document()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParsePlan(doc); err != nil {
			t.Fatalf("%s: %v", doc, err)
		}
	})
}

// FuzzParam: whatever the schema and the value, it ends with a text or a refusal.
func FuzzParam(f *testing.F) {
	for _, seed := range [][2]string{
		{`{"type":"integer","minimum":1,"multipleOf":1e-300,"default":3}`, `4.0`},
		{`{"enum":["a",1e9999999,null],"default":null}`, `1e-9999999`},
		{`{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#"}}}`, `[1]`},
		{`{"$ref":"https://example.com/x"}`, `""`},
		{`{"$schema":"http://json-schema.org/draft-07/schema#","pattern":"^(a|b)+$","format":"date"}`, `"2026-02-30"`},
		{`{"type":"object","patternProperties":{"[":{}},"unevaluatedProperties":false}`, `{"a":1}`},
		{`true`, `{"a":[{"b":"c"}]}`}, {`false`, `1`},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, schema, value string) {
		m, err := ParseManifest(fmt.Appendf(nil, `{"id":"a","version":"1","execute":{"shell":"sh","script":"x","timeout":"1s","params":{"p":%s}}}`, schema), JSON)
		if err != nil {
			refusal(t, err)
			return
		}
		p, err := ParsePlan(fmt.Appendf(nil, `{"target":{"all":true},"params":{"p":%s}}`, value))
		if err != nil {
			refusal(t, err)
			return
		}
		if _, err := m.Resolve(p.Params); err != nil {
			refusal(t, err)
		}
	})
}
