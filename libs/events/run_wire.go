package events

import (
	"kanade/libs/events/wire"
)

// Facts of runs as agents of kanade 0.43.45 tell them: a started event and a result, in any order, at least once.

func startedFact(data []byte) (RunFact, error) {
	s, err := wire.DecodeEventStarted(data)
	if err != nil {
		return RunFact{}, err
	}
	return RunFact{
		Run: Run{
			PCID: s.PCID, ExecID: s.ExecID, RequestID: s.RequestID, ResultID: s.ResultID, JobID: s.ManifestID, Version: s.Version,
		},
		Kind: RunKindStarted, At: s.StartedAt, StartedAt: s.StartedAt,
	}, nil
}

func resultFact(data []byte) (RunFact, error) {
	r, err := wire.DecodeExecResult(data)
	if err != nil {
		return RunFact{}, err
	}
	code := r.ExitCode
	f := RunFact{
		Run: Run{
			PCID: r.PCID, ExecID: r.ExecID, RequestID: r.RequestID, ResultID: r.EffectiveResultID(), JobID: r.ManifestID,
		},
		Kind: RunKindFinished, At: r.FinishedAt, StartedAt: r.StartedAt, FinishedAt: r.FinishedAt, Code: &code,
		Stdout: wireOutput(r.Stdout, r.StdoutObject), Stderr: wireOutput(r.Stderr, r.StderrObject),
	}
	if detail, ok := r.Skip(); ok {
		f.Kind, f.State, f.Reason, f.Detail = RunKindSkipped, StateSkipped, wireSkipReason(code), detail
		return f, nil
	}
	f.State, f.Reason = wireEnd(&r)
	if f.State == StateTimedOut || f.State == StateKilled {
		f.Code = nil
	}
	return f, nil
}

func wireOutput(text, object string) Output {
	return Output{Text: text, Bytes: int64(len(text)), Truncated: object != "", Object: object}
}

// wireSkipReason names the four reserved codes in our words.
func wireSkipReason(code int) string {
	switch code {
	case wire.ExitVersionPin:
		return SkipReasonVersion
	case wire.ExitDeadline:
		return SkipReasonDeadline
	case wire.ExitRevoked:
		return SkipReasonRevoked
	default:
		return SkipReasonStale
	}
}

// wireEnd tells how an old agent's run ended. What can't be told apart from a failure is one.
func wireEnd(r *wire.ExecResult) (TargetState, string) {
	switch end := r.Ended(); {
	case end == wire.EndKilled:
		return StateKilled, ""
	case end == wire.EndTimeout:
		return StateTimedOut, ""
	case r.ExitCode == 0:
		return StateSucceeded, ""
	case end == wire.EndSignal:
		return StateFailed, "signal"
	default:
		return StateFailed, ""
	}
}
