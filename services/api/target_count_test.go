package api

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestTargetCount: an exec is answered with how many endpoints it asks for, whatever its form.
func TestTargetCount(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	for _, pc := range []string{"pc-01", "pc-02", "pc-03", "pc-04"} {
		s.endpoint(pc)
	}
	for _, pc := range []string{"pc-01", "pc-02"} {
		s.write(http.MethodPost, "/api/agents/"+pc+"/groups", `{"group":"pair"}`)
	}
	s.write(http.MethodPost, "/api/agents/never-seen/groups", `{"group":"pair"}`)
	for _, x := range []struct {
		plan string
		want int
	}{
		{`{"target":{"all":true}}`, 4},
		{`{"target":{"groups":["pair"]}}`, 2},
		{`{"target":{"groups":["pair","pair"],"pcs":["pc-02","pc-03","ghost","ghost"]}}`, 4},
		{`{"target":{"groups":["nobody"]}}`, 0},
		{`{"target":{"pcs":["ghost"]}}`, 1},
		{`{"target":{"all":true},"rollout":{"waves":[{"percent":50,"delay":"0s"},{"percent":100,"after":"previous"}]}}`, 4},
		{`{"target":{"all":true},"rollout":{"waves":[{"percent":50,"delay":"0s"}]}}`, 4}, // none of the four can run it, and all are left out at once
		{`{"target":{"groups":["pair"]},"rollout":{"waves":[{"count":1,"delay":"0s"},{"group":"pair","delay":"1m"}]}}`, 2},
		{`{"target":{"groups":["nobody"]},"rollout":{"waves":[{"percent":100,"delay":"0s"}]}}`, 0},
		{`{"target":{"pcs":["a","b","c","d"]},"rollout":{"waves":[{"percent":50,"delay":"0s"},{"count":1,"delay":"1m"}]}}`, 3},
		{`{"rollout":{"waves":[{"group":"pair","delay":"0s"},{"pcs":["pc-01","pc-04"],"delay":"1m"}]}}`, 3},
	} {
		e := s.exec("hello", x.plan, "Kanade-Min-Sequence", fmt.Sprint(s.seen.Load()))
		require.Equal(t, x.want, e.TargetCount, x.plan)
		require.Equal(t, &x.want, s.requested(e.Sequence).TargetCount, x.plan)
		require.False(t, e.Uncounted)
		var dry execAnswer
		s.do(http.MethodPost, "/api/exec/hello?dry_run=true", x.plan).into(t, &dry)
		require.Equal(t, x.want, dry.TargetCount, "a dry run says the same: %s", x.plan)
	}
}

// TestTargetCountWithoutProjector: what the read model has to say is not made up where there is none.
func TestTargetCountWithoutProjector(t *testing.T) {
	s := newSystem(t, parts{noProjector: true})
	s.job()
	e := s.exec("hello", `{"target":{"groups":["g"],"pcs":["a"]}}`)
	require.Equal(t, 1, e.TargetCount)
	require.True(t, e.Uncounted, "of the group nobody knows")
	require.Nil(t, s.requested(e.Sequence).TargetCount)
	e = s.exec("hello", `{"target":{"pcs":["a","b","a"]},"rollout":{"waves":[{"percent":100,"delay":"0s"}]}}`)
	require.Equal(t, 2, e.TargetCount)
	require.False(t, e.Uncounted, "names are counted without it")
}

// TestRepeatedTargetCount: the fleet grows between two requests under one key, and the answer does not.
func TestRepeatedTargetCount(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	s.endpoint("pc-01")
	first := s.exec("hello", `{"target":{"all":true}}`, "Idempotency-Key", "k", "Kanade-Min-Sequence", fmt.Sprint(s.seen.Load()))
	require.Equal(t, 1, first.TargetCount)
	s.endpoint("pc-02")
	require.Equal(t, first, s.exec("hello", `{"target":{"all":true}}`, "Idempotency-Key", "k"))
	require.Equal(t, 2, s.exec("hello", `{"target":{"all":true}}`).TargetCount)
}

// TestRequireTargetsRightAfterJoin: whoever has joined a group before the request is among its targets.
func TestRequireTargetsRightAfterJoin(t *testing.T) {
	s := newSystem(t, parts{})
	s.write(http.MethodPost, "/api/jobs", "id: hello\nversion: \"1\"\nexecute: {shell: cmd, script: x, timeout: 60s}\n", "Content-Type", yamlType)
	for i := range 50 {
		pc, group := fmt.Sprintf("pc-%02d", i), fmt.Sprintf("g%d", i)
		s.endpoint(pc)
		s.write(http.MethodPost, "/api/agents/"+pc+"/groups", `{"group":"`+group+`"}`)
		plan := `{"target":{"groups":["` + group + `"]},"require_targets":true}`
		if i%2 == 0 {
			require.Equal(t, http.StatusOK, s.do(http.MethodPost, "/api/exec/hello?dry_run=true", plan).status)
			continue
		}
		require.Equal(t, 1, s.exec("hello", plan).TargetCount)
	}
	before := s.lastSeq()
	refused := s.do(http.MethodPost, "/api/exec/hello", `{"target":{"groups":["nobody"]},"require_targets":true}`)
	require.Equal(t, http.StatusUnprocessableEntity, refused.status, refused.text())
	require.Equal(t, before, s.lastSeq())
}

// TestRequireTargetsWithoutReadModel: who is named is a target whatever the read model knows; who is a member of a group
// it alone can say, and it is waited for, not guessed.
func TestRequireTargetsWithoutReadModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, parts{noProjector: true})
		s.job()
		require.Equal(t, 1, s.exec("hello", `{"target":{"pcs":["a"]},"require_targets":true}`).TargetCount)
		before := s.lastSeq()
		none := s.do(http.MethodPost, "/api/exec/hello", `{"target":{"groups":["g"]},"require_targets":true}`)
		require.Equal(t, http.StatusServiceUnavailable, none.status)
		require.Contains(t, none.text(), "no read model")
		require.Equal(t, before, s.lastSeq())

		s.feed() // a read model that nobody brings further
		behind := time.Now()
		late := s.do(http.MethodPost, "/api/exec/hello", `{"target":{"groups":["g"]},"require_targets":true}`)
		require.Equal(t, http.StatusServiceUnavailable, late.status)
		require.InDelta(t, 5, time.Since(behind).Seconds(), 0.1)
		behind = time.Now()
		late = s.do(http.MethodPost, "/api/exec/hello", `{"target":{"groups":["g"]}}`, "Kanade-Min-Sequence", fmt.Sprint(before))
		require.Equal(t, http.StatusServiceUnavailable, late.status, "a real exec honours it")
		require.InDelta(t, 5, time.Since(behind).Seconds(), 0.1)
		require.Equal(t, before, s.lastSeq())
		behind = time.Now()
		require.Equal(t, 1, s.exec("hello", `{"target":{"pcs":["a"]},"require_targets":true}`).TargetCount)
		require.Less(t, time.Since(behind), time.Second)
	})
}
