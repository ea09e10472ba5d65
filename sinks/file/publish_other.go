//go:build unix && !linux

package file

func publish(tmp, final string) error { return publishByLink(tmp, final) }
