package catalog

import (
	"bytes"
	"errors"
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
		_ = p.Unsupported()
	})
}
