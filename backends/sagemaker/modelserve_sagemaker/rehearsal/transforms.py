"""Batch transform: objects of S3 cut into requests, put to containers of a job's own, the answers put back to S3.

    parts/a.jsonl ─► lines ─► as many as fit MaxPayloadInMB ─► POST /invocations ─► answers/a.jsonl.out

A job's name is taken for ever, and an object of which one request fails has no answers.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

from modelserve.standin.fleet import Fleet, NoCapacityError, NotHealthyError
from modelserve_sagemaker.logs import JOBS
from modelserve_sagemaker.rehearsal.answers import AwsError, invalid, page
from modelserve_sagemaker.rehearsal.lives import Lives, NoModelError
from modelserve_sagemaker.rehearsal.records import Records
from modelserve_sagemaker.rehearsal.upstream import Upstream

Request = dict[str, Any]

_LOCATION = re.compile(r"s3://(?P<bucket>[^/]+)/(?P<prefix>.*)")
_MB = 1_000_000
_STARTUP_S = 600
_DEFAULTS = {"MaxConcurrentTransforms": 1, "MaxPayloadInMB": 6, "BatchStrategy": "MultiRecord"}
_WORDS = {"MULTI_RECORD": "MultiRecord", "SINGLE_RECORD": "SingleRecord"}


class JobFailedError(Exception):
    """A job cannot go on; the text is what AWS says of it."""


@dataclass(slots=True)
class TransformRecord:
    """One job, now or long ago."""

    request: Request
    arn: str
    status: str = "InProgress"
    failure: str = ""
    created: float = field(default_factory=time.time)
    started: float | None = None
    ended: float | None = None
    stopping: threading.Event = field(default_factory=threading.Event)
    fleet: Fleet | None = None

    @property
    def is_at_work(self) -> bool:
        return self.status in {"InProgress", "Stopping"}


class Transforms:
    """The jobs, each in a thread of its own."""

    def __init__(self, records: Records, lives: Lives, upstream: Upstream) -> None:
        self._records = records
        self._lives = lives
        self._upstream = upstream
        self.jobs: dict[str, TransformRecord] = {}
        self.operations = {
            "CreateTransformJob": self._create,
            "DescribeTransformJob": self._describe,
            "StopTransformJob": self._stop,
            "ListTransformJobs": self._list,
        }

    def close(self) -> None:
        """Stop what is at work."""
        for job in self.jobs.values():
            job.stopping.set()

    def _create(self, request: Request) -> Request:
        name, records = request["TransformJobName"], self._records
        records.get("model", request["ModelName"])
        arn = records.arn("transform-job", name)
        with records.lock:
            if name in self.jobs:
                said = "Job name must be unique within an AWS account and region, and a transform job with this name "
                raise AwsError("ResourceInUse", f"{said}already exists ({arn})")
            job = TransformRecord({key: value for key, value in request.items() if key != "Tags"}, arn)
            self.jobs[name] = job
            records.tag(arn, request.get("Tags", []))
        self._lives.start(self._run, job)
        return {"TransformJobArn": arn}

    def _describe(self, request: Request) -> Request:
        job = self._job(request)
        times = {"CreationTime": job.created, "TransformStartTime": job.started, "TransformEndTime": job.ended}
        told = {"TransformJobStatus": job.status, "FailureReason": job.failure, "TransformJobArn": job.arn}
        known = {**told, **times}
        return {**job.request, **{key: value for key, value in known.items() if value not in {None, ""}}}

    def _stop(self, request: Request) -> None:
        job = self._job(request)
        with self._records.lock:
            if not job.is_at_work:
                raise invalid(f"The request was rejected because the transform job is in status {job.status}.")
            job.status = "Stopping"
        job.stopping.set()
        if job.fleet is not None:
            job.fleet.stop()

    def _list(self, request: Request) -> Request:
        with self._records.lock:
            found = [
                {
                    "TransformJobName": name,
                    "TransformJobArn": job.arn,
                    "CreationTime": job.created,
                    "TransformJobStatus": job.status,
                }
                for name, job in self.jobs.items()
                if request.get("StatusEquals") in {None, job.status}
            ]
        return page(found, "TransformJobSummaries", "TransformJobName", request)

    def _job(self, request: Request) -> TransformRecord:
        name = request["TransformJobName"]
        if name not in self.jobs:
            raise invalid(f"Could not find requested job with name: {name}")
        return self.jobs[name]

    def _run(self, job: TransformRecord) -> None:
        failure = ""
        try:
            self._transform(job)
        except (JobFailedError, NoModelError) as error:
            failure = str(error)
        except NotHealthyError:
            failure = "AlgorithmError: See job logs for more information"
        except NoCapacityError as error:
            failure = f"CapacityError: Unable to provision requested ML compute capacity. {error}"
        finally:
            if job.fleet is not None:
                self._lives.stop(job.fleet)
            with self._records.lock:
                job.status = "Stopped" if job.stopping.is_set() else "Failed" if failure else "Completed"
                job.failure = failure if job.status == "Failed" else ""
                job.ended = time.time()

    def _transform(self, job: TransformRecord) -> None:
        request = job.request
        told = {name: request.get(name, value) for name, value in _DEFAULTS.items()}
        job.fleet = self._lives.fleet(
            f"jobs/{request['TransformJobName']}/i",
            request["ModelName"],
            startup_s=_STARTUP_S,
            group=JOBS,
            environment={**_environment(told), **request.get("Environment", {})},
        )
        if job.stopping.is_set():
            return
        job.fleet.resize(request["TransformResources"]["InstanceCount"])
        job.started = time.time()
        settings = {**told, **_asked(job.fleet), **{name: request[name] for name in _DEFAULTS if name in request}}
        source = _LOCATION.fullmatch(request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"])
        assert source is not None
        keys = self._keys(source["bucket"], source["prefix"])
        if not keys:
            raise JobFailedError("ClientError: No objects found at the S3 path that was given.")
        failures = [why for key in keys if (why := self._object(job, settings, source, key))]
        if failures:
            raise JobFailedError(failures[0])

    def _keys(self, bucket: str, prefix: str) -> list[str]:
        pages = self._upstream.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [entry["Key"] for one in pages for entry in one.get("Contents", [])]

    def _object(self, job: TransformRecord, settings: Request, source: re.Match[str], key: str) -> str:
        """Put one object's answers where they belong; why there are none, where that is so."""
        s3, output = self._upstream.client("s3"), job.request["TransformOutput"]
        body = s3.get_object(Bucket=source["bucket"], Key=key)["Body"].read()
        try:
            payloads = list(_payloads(body, settings))
            with ThreadPoolExecutor(settings["MaxConcurrentTransforms"]) as threads:
                answers = list(threads.map(lambda payload: self._asked(job, payload), payloads))
        except JobFailedError as error:
            return str(error)
        if job.stopping.is_set():
            return ""
        into = _LOCATION.fullmatch(output["S3OutputPath"])
        assert into is not None
        name = f"{into['prefix'].rstrip('/')}/{key.removeprefix(source['prefix']).lstrip('/')}.out"
        between = b"\n" if output.get("AssembleWith") == "Line" else b""
        s3.put_object(Bucket=into["bucket"], Key=name, Body=b"".join(answer + between for answer in answers))
        return ""

    def _asked(self, job: TransformRecord, payload: bytes) -> bytes:
        client = job.request.get("ModelClientConfig", {})
        headers = {
            "content-type": job.request["TransformInput"].get("ContentType", "application/octet-stream"),
            "accept": job.request["TransformOutput"].get("Accept", ""),
        }
        assert job.fleet is not None
        why = ""
        for _ in range(1 + client.get("InvocationsMaxRetries", 3)):
            if job.stopping.is_set():
                return b""
            try:
                answer = job.fleet.forward(
                    "POST", "/invocations", headers, payload, client.get("InvocationsTimeoutInSeconds", 600)
                )
            except httpx.TransportError as error:
                why = f"AlgorithmError: {error}"
                continue
            if answer.status == 200:
                return answer.body
            why = f"ClientError: {answer.status} from container: {answer.body[:200].decode(errors='replace')}"
        raise JobFailedError(why)


def _environment(told: Request) -> dict[str, str]:
    strategy = {word: ours for ours, word in _WORDS.items()}[told["BatchStrategy"]]
    return {
        "SAGEMAKER_BATCH": "true",
        "SAGEMAKER_BATCH_STRATEGY": strategy,
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": str(told["MaxPayloadInMB"]),
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": str(told["MaxConcurrentTransforms"]),
    }


def _asked(fleet: Fleet) -> Request:
    """What the container wishes, where the job does not say it."""
    answer = fleet.forward("GET", "/execution-parameters", {}, b"", 5)
    if answer.status != 200:
        return {}
    said = json.loads(answer.body)
    if "BatchStrategy" in said:
        said["BatchStrategy"] = _WORDS[said["BatchStrategy"]]
    return {name: said[name] for name in _DEFAULTS if name in said}


def _payloads(body: bytes, settings: Request) -> Iterator[bytes]:
    """An object as requests: its lines, as many as fit or one by one."""
    most, is_single = settings["MaxPayloadInMB"] * _MB, settings["BatchStrategy"] == "SingleRecord"
    held: list[bytes] = []
    size = 0
    for line in body.splitlines(keepends=True):
        if len(line) > most:
            raise JobFailedError(f"ClientError: A record of {len(line)} bytes is above MaxPayloadInMB.")
        if held and (is_single or size + len(line) > most):
            yield b"".join(held)
            held, size = [], 0
        held.append(line)
        size += len(line)
    if held:
        yield b"".join(held)
