"""One task's rounds: who trains what, what is reported, what is proposed. Knows neither votes nor money."""
