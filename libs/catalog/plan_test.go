package catalog

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPlanRefusals(t *testing.T) {
	for _, c := range []struct {
		body string
		kind Kind
		want string
	}{
		{`{"target":`, Malformed, "not readable as JSON: it ends too early"},
		{``, Malformed, "the document is empty"},
		{`null`, Shape, "expected a map, got null"},
		{`{"target":null}`, Shape, "target: must not be null"},
		{`{"target":{"all":true,"all":false}}`, Shape, "target.all: given twice"},
		{`{"target":{"all":"true"}}`, Shape, `target.all: expected true or false, got "true"`},
		{`{"target":{"pcs":null}}`, Shape, "target.pcs: must not be null"},
		{`{"target":{"pcs":[1]}}`, Shape, "target.pcs[0]: expected text, got 1"},
		{`{"target":{"all":true},"rollout":{}}`, Shape, "rollout.waves: missing"},
		{`{"target":{"all":true},"rollout":{"strategy":"tide","waves":[]}}`, Shape, `rollout.strategy: expected wave, got "tide"`},
		{`{"target":{"all":true},"max_failures":"many"}`, Shape, `max_failures: expected a count like 5 or a share like 10%, got "many"`},
		{`{}`, Invalid, "target: must name at least one of all, groups, pcs (or set rollout.waves)"},
		{`{"target":{"all":false,"groups":[]}}`, Invalid, "target: must name at least one of all, groups, pcs (or set rollout.waves)"},
		{`{"target":{"groups":[""],"pcs":["a b","*","a.","a..b"]}}`, Invalid, `target.groups[0]: invalid id: empty; ` +
			`target.pcs[0]: invalid id "a b": ' ' is not one of letters, digits and . _ = / -; ` +
			`target.pcs[1]: invalid id "*": must begin with a letter or digit; ` +
			`target.pcs[2]: invalid id "a.": must not end with a dot; ` +
			`target.pcs[3]: invalid id "a..b": two dots in a row make an empty subject token`},
		{`{"target":{"all":true},"jitter":"soon","expires_after":"0"}`, Invalid, `jitter: expected a duration like 30s, got "soon"; expires_after: must be more than 0`},
		{`{"target":{"all":true},"max_failures":"101%","max_parallel":0}`, Invalid, "max_failures: 101% is more than the limit of 100%; max_parallel: must be at least 1"},
		{`{"rollout":{"waves":[]}}`, Invalid, "rollout.waves: must not be empty"},
		{`{"target":{"all":true},"rollout":{"waves":[{"group":" ","delay":"1s"},{"group":"a","count":1,"delay":"later"},{"percent":101,"delay":"0"},{"group":"a"}]}}`, Invalid,
			`rollout.waves[0]: a wave must name a group, percent, count or pcs; rollout.waves[1]: a wave must name only one of group, percent, count, pcs; ` +
				`rollout.waves[1].delay: expected a duration like 30s, got "later"; rollout.waves[2].percent: 101 is outside of 1 to 100; ` +
				`rollout.waves[3].delay: missing: a wave has a delay, or after, or pause`},
		{`{"rollout":{"waves":[{"group":"a","after":"previous"}]}}`, Invalid, "rollout.waves[0].after: the first wave has no wave before it"},
		{`{"rollout":{"waves":[{"percent":50,"delay":"0"},{"count":5,"delay":"1m"},{"pcs":["a"],"delay":"1h"}]}}`, Invalid,
			"rollout.waves[0]: percent and count are parts of the target, and it names nobody; rollout.waves[1]: percent and count are parts of the target, and it names nobody"},
		{`{"target":{"all":true},"retry":{"max":0,"backoff":"1s"}}`, Invalid, "retry.max: 0 is outside of 1 to 10"},
		{`{"target":{"all":true},"retry":{"max":11,"backoff":"999ms"}}`, Invalid, "retry.max: 11 is outside of 1 to 10; retry.backoff: must be at least 1s"},
		{`{"target":{"all":true},"retry":{"max":1,"backoff":"soon"}}`, Invalid, `retry.backoff: expected a duration like 30s, got "soon"`},
		{`{"target":{"all":true},"retry":{"max":1}}`, Shape, "retry.backoff: missing"},
		{`{"target":{"all":true},"retry":{"max":1,"backoff":"1s","jitter":true}}`, Shape, "retry.jitter: unknown key, expected one of max, backoff"},
		{`{"target":{"all":true},"require_targets":null}`, Shape, "require_targets: must not be null"},
		{`{"target":{"all":true},"params":{"a b":1}}`, Invalid, `params["a b"]: can't be the name of a parameter: expected letters, digits and _`},
	} {
		_, err := ParsePlan([]byte(c.body))
		require.EqualError(t, err, c.want, c.body)
		require.Equal(t, c.kind, asError(t, err).Kind, c.body)
	}
}

func TestPlanInFull(t *testing.T) {
	body := `{"target":{"groups":["b"],"pcs":["a/1"],"all":true},"rollout":{"strategy":"wave","waves":[{"group":"g","delay":"0s"},` +
		`{"percent":10,"after":"previous","pause":true},{"delay":"1h","pcs":["x"]}]},"jitter":"5m","deadline_at":"2026-01-31T08:00:00Z",` +
		`"expires_after":"2d","max_failures":"10%","max_parallel":5,"params":{"a":{"b":[1.50,null]}},"retry":{"max":2,"backoff":"30s"},"require_targets":true}`
	p, err := ParsePlan([]byte(body))
	require.NoError(t, err)
	doc, err := p.Document()
	require.NoError(t, err)
	require.Equal(t, body, string(doc))
	stored, err := ParsePlanDocument(doc)
	require.NoError(t, err)
	require.Equal(t, p, stored)

	empty, err := ParsePlan([]byte(`{"target":{"pcs":["a"]},"rollout":null,"jitter":null,"deadline_at":null}`))
	require.NoError(t, err)
	doc, err = empty.Document()
	require.NoError(t, err)
	require.Equal(t, `{"target":{"groups":[],"pcs":["a"],"all":false}}`, string(doc))
}

func TestPlanLimits(t *testing.T) {
	body := func(n int) []byte {
		return fmt.Appendf(nil, `{"target":{"pcs":[%s"p"]}}`, strings.Repeat(`"p",`, n-1))
	}
	p, err := ParsePlan(body(MaxPlanPCs))
	require.NoError(t, err)
	require.Len(t, p.Target.PCs, MaxPlanPCs)
	_, err = ParsePlan(body(MaxPlanPCs + 1))
	require.EqualError(t, err, "100001 named endpoints are more than the limit of 100000")
	_, err = ParsePlan(make([]byte, MaxPlan+1))
	require.EqualError(t, err, "16777217 bytes are more than the limit of 16777216")
}

func TestCheckDeadline(t *testing.T) {
	p, err := ParsePlan([]byte(`{"rollout":{"waves":[{"group":"a","delay":"0s"},{"group":"b","delay":"1h"}]},"deadline_at":"2026-01-31T08:00:00Z"}`))
	require.NoError(t, err)
	deadline := *p.DeadlineAt
	require.NoError(t, p.CheckDeadline(deadline.Add(-time.Hour-1)))
	require.EqualError(t, p.CheckDeadline(deadline.Add(-time.Hour)), "rollout.waves[1].delay: 1h is at or beyond deadline_at: nothing of this wave could start")
	p.DeadlineAt = nil
	require.NoError(t, p.CheckDeadline(deadline))
}
