package events

import "errors"

func startedFact([]byte) (RunFact, error) { return RunFact{}, errors.New("wire") }
func resultFact([]byte) (RunFact, error)  { return RunFact{}, errors.New("wire") }
