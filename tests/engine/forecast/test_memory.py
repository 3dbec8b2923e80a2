ROUNDING, GPTQ = {"technique": "round-to-nearest"}, {"technique": "gptq"}


def test_more_calibration_takes_longer_and_holds_more(step_forecast, tmp_path):
    few, many = (
        {
            "calibration": {
                "text": str(tmp_path / "data" / "text.txt"),
                "samples": count,
                "context": 32,
            }
        }
        for count in (8, 4096)
    )
    assert (
        step_forecast(GPTQ, **few).seconds < step_forecast(GPTQ, **many).seconds
        and step_forecast(GPTQ, **few).peak_rss_bytes < step_forecast(GPTQ, **many).peak_rss_bytes
    )
